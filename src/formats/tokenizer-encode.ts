// Text → ids: the steps of `tokenizers`, with added tokens found here and the rest done by @huggingface/tokenizers.

import { Tokenizer as Library } from '@huggingface/tokenizers';
import { OpenLoraError } from '../errors.js';
import { AddedTokenFinder, type Piece } from './added-tokens.js';
import { toWellFormed } from './chat-template-value.js';
import { unsupported, type AddedTokenJson, type TokenizerJson } from './tokenizer-json.js';

/** Which special tokens that are spelled in a text stay text: all, none, or those that begin at these places. */
export type TextTokens = 'all' | 'none' | ReadonlySet<number>;

type IsText = (token: AddedTokenJson, start: number) => boolean;

export class TextEncoding {
  readonly #library: Library;
  readonly #added: ReadonlyMap<string, number>;
  /** Tokens that are found in the text as it is; those found in the normalized text, and the special ones of them before. */
  readonly #raw: AddedTokenFinder;
  readonly #normalized: AddedTokenFinder;
  readonly #unnormalized: AddedTokenFinder;

  /** Throws ERR_TOKENIZER_UNSUPPORTED. */
  constructor(source: TokenizerJson) {
    try {
      this.#library = new Library(source.library, {});
    } catch (error) {
      throw unsupported('the file', `can't be used: ${(error as Error).message}`);
    }
    const { addedTokens } = source;
    this.#added = new Map(addedTokens.map(({ content, id }) => [content, id]));
    const normalized = addedTokens.filter((token) => token.isNormalized);
    const asIs = (token: AddedTokenJson): { token: AddedTokenJson; text: string } => ({ token, text: token.content });
    this.#raw = new AddedTokenFinder(addedTokens.filter((token) => !token.isNormalized).map(asIs));
    this.#normalized = new AddedTokenFinder(normalized.map((token) => ({ token, text: this.textOf(token) })));
    this.#unnormalized = new AddedTokenFinder(normalized.filter((token) => token.special).map(asIs));
  }

  /** What an added token is looked for as, and decoded to. */
  textOf({ content, isNormalized }: AddedTokenJson): string {
    return isNormalized ? (this.#library.normalizer?.normalize(content) ?? content) : content;
  }

  /** undefined stands for a token that the file has no id for. Lone surrogates become U+FFFD. */
  encode(given: string, addSpecialTokens: boolean, textTokens: TextTokens): (number | undefined)[] {
    const text = toWellFormed(given);
    const isText: IsText = ({ special }, start) =>
      special && (textTokens === 'all' || (textTokens !== 'none' && textTokens.has(start)));
    const tokens: string[] = [];
    for (const piece of this.#raw.split(text, isText)) {
      if (piece.token) tokens.push(piece.token.content);
      else this.#encodePiece(piece, isText, tokens);
    }
    const { post_processor: post, model } = this.#library;
    const all = post ? post.post_process(tokens, null, addSpecialTokens).tokens : tokens;
    return all.map((token) => this.#added.get(token) ?? model?.tokens_to_ids.get(token) ?? model?.unk_token_id);
  }

  #encodePiece(raw: Piece, isText: IsText, tokens: string[]): void {
    const { normalizer, pre_tokenizer: pre, model } = this.#library;
    const normalized = normalizer ? normalizer.normalize(raw.text) : raw.text;
    for (const piece of this.#normalized.split(normalized, this.#isTextNormalized(raw, isText))) {
      if (piece.token) {
        tokens.push(piece.token.content);
        continue;
      }
      // The library's name for it: Metaspace may be asked to prepend to the beginning of a text only.
      const section_index = raw.start === 0 && piece.start === 0 ? 0 : 1;
      const words = pre ? pre.pre_tokenize(piece.text, { section_index }) : [piece.text];
      for (const token of model?._call(words) ?? []) tokens.push(token);
    }
  }

  /** Places are lost by normalizing, so special tokens are told apart by their order. */
  #isTextNormalized(raw: Piece, isText: IsText): IsText {
    const found: boolean[] = [];
    this.#unnormalized.split(raw.text, (token, start) => {
      found.push(isText(token, raw.start + start));
      return false;
    });
    const isAnyText = found.includes(true);
    let next = 0;
    return ({ special }) => special && isAnyText && (found[next++] ?? true);
  }
}

/** Throws ERR_TOKEN_RANGE for a token that the model's vocabulary doesn't have. */
export function checkedIds(ids: readonly (number | undefined)[], vocabSize: number): Uint32Array {
  const tokens = new Uint32Array(ids.length);
  ids.forEach((id, i) => {
    if (id === undefined || id >= vocabSize) {
      throw new OpenLoraError('ERR_TOKEN_RANGE', `the text has token ${id ?? 'unknown'}, the model has ${vocabSize}`);
    }
    tokens[i] = id;
  });
  return tokens;
}
