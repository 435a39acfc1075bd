// Text → ids: the steps of `tokenizers`, with normalizers, pre-tokenizers and post-processors of @huggingface/tokenizers.

import { Tokenizer as Library } from '@huggingface/tokenizers';
import { OpenLoraError } from '../errors.js';
import { AddedTokenFinder, type Piece } from './added-tokens.js';
import { BytePairs } from './byte-pairs.js';
import { unsupported, type AddedTokenJson, type TokenizerJson } from './tokenizer-json.js';

/** Which special tokens that are spelled in a text stay text: all, none, or those that begin at these places. */
export type TextTokens = 'all' | 'none' | ReadonlySet<number>;

type IsText = (token: AddedTokenJson, start: number) => boolean;

export class TextEncoding {
  readonly #library: Library;
  readonly #bytePairs: BytePairs;
  /** What the post-processor puts before and after a text. */
  readonly #around: { before: number[]; after: number[] };
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
    this.#bytePairs = new BytePairs(source.bytePairs);
    this.#around = readPostProcessor(this.#library, source);
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

  /** Lone surrogates become U+FFFD. */
  encode(given: string, addSpecialTokens: boolean | 'once', textTokens: TextTokens): number[] {
    const text = given.toWellFormed();
    const isText: IsText = ({ special }, start) =>
      special && (textTokens === 'all' || (textTokens !== 'none' && textTokens.has(start)));
    const ids: number[] = [];
    for (const piece of this.#raw.split(text, isText)) {
      if (piece.token) ids.push(piece.token.id);
      else this.#encodePiece(piece, isText, ids);
    }
    if (!addSpecialTokens) return ids;
    const { before, after } = this.#around;
    const hasThem = addSpecialTokens === 'once' && before.every((id, i) => ids[i] === id);
    return [...(hasThem ? [] : before), ...ids, ...after];
  }

  #encodePiece(raw: Piece, isText: IsText, ids: number[]): void {
    const { normalizer, pre_tokenizer: pre } = this.#library;
    const normalized = normalizer ? normalizer.normalize(raw.text) : raw.text;
    for (const piece of this.#normalized.split(normalized, this.#isTextNormalized(raw, isText))) {
      if (piece.token) {
        ids.push(piece.token.id);
        continue;
      }
      // The library's name for it: Metaspace may be asked to prepend to the beginning of a text only.
      const section_index = raw.start === 0 && piece.start === 0 ? 0 : 1;
      for (const word of pre ? pre.pre_tokenize(piece.text, { section_index }) : [piece.text]) {
        this.#bytePairs.encode(word, ids);
      }
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

/** Lets the post-processor show what it puts around a text. */
function readPostProcessor(library: Library, source: TokenizerJson): { before: number[]; after: number[] } {
  const text = '\0';
  const tokens = library.post_processor?.post_process([text], null, true).tokens ?? [text];
  const at = tokens.indexOf(text);
  if (at < 0) throw unsupported('post_processor', 'leaves the text out');
  const added = new Map(source.addedTokens.map(({ content, id }) => [content, id]));
  const idOf = (token: string): number => {
    const id = added.get(token) ?? source.bytePairs.vocab.get(token);
    if (id === undefined) throw unsupported('post_processor', `adds ${JSON.stringify(token)}, which is no token`);
    return id;
  };
  return { before: tokens.slice(0, at).map(idOf), after: tokens.slice(at + 1).map(idOf) };
}

/** Throws ERR_TOKEN_RANGE for a token that the model's vocabulary doesn't have. */
export function checkedIds(ids: readonly number[], vocabSize: number): Uint32Array {
  const unknown = ids.find((id) => id >= vocabSize);
  if (unknown === undefined) return Uint32Array.from(ids);
  throw new OpenLoraError('ERR_TOKEN_RANGE', `the text has token ${unknown}, the model has ${vocabSize}`);
}
