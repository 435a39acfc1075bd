// Checks tokenizer.json, and rewrites the parts that @huggingface/tokenizers 0.2.0 reads differently from the Rust library
// into equivalent parts that it reads the same. What can't be expressed is refused by name.
//
//   part                                    the JS library                       here
//   ByteLevel, Digits, Whitespace,          ASCII \d \w, JS's \s, contiguous     a Split by the Rust library's own pattern,
//     Punctuation (pre-tokenizers)            punctuation                          with Oniguruma's classes
//   Split merged with a neighbour           as if isolated                       a pattern that matches the merged pieces
//   Split isolated and inverted             drops what doesn't match             isolated, not inverted
//   Metaspace split: true                   never splits                         followed by a Split before each ▁
//   Metaspace add_prefix_space: false       ignored                              prepend_scheme never
//   Replace content with $                  JS's replacement patterns            escaped
//   Strip (normalizer)                      JS's whitespace                      Replace by pattern
//   possessive and atomic parts of a Regex  as if they gave back                 a lookahead and a backreference
//   added tokens: lstrip, rstrip            JS's whitespace                      found by added-tokens.ts

import { OpenLoraError } from '../errors.js';
import type { BytePairsSource } from './byte-pairs.js';
import { withoutPossessives } from './tokenizer-regex.js';

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };
export type JsonObject = { [key: string]: Json };

export interface AddedTokenJson {
  id: number;
  content: string;
  special: boolean;
  /** Whether it is looked for in the normalized text; it then stands for its normalized content (`tokenizers` 0.23). */
  isNormalized: boolean;
  /** Whether it takes in the space before it, and after it. */
  lstrip: boolean;
  rstrip: boolean;
}

/** A checked tokenizer.json. `library` is what the JS library is constructed from, for its normalizers and pre-tokenizers. */
export interface TokenizerJson {
  bytePairs: BytePairsSource;
  /** In the order of their ids. */
  addedTokens: AddedTokenJson[];
  decoder: Json;
  library: JsonObject;
}

/** Ids at or over it are a sign of a broken file, and would make a huge table. */
const TOKEN_ID_MAX = 1 << 24;

const GPT2_PATTERN = String.raw`'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`;
const PUNCTUATION = String.raw`[\p{P}\x21-\x2F\x3A-\x40\x5B-\x60\x7B-\x7E]`;

export function unsupported(part: string, problem: string): OpenLoraError {
  return new OpenLoraError('ERR_TOKENIZER_UNSUPPORTED', `tokenizer.json: ${part} ${problem}`, { part });
}

export function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function objectAt(value: Json | undefined, part: string): JsonObject {
  if (!isObject(value)) throw unsupported(part, `is ${JSON.stringify(value) ?? 'missing'}, wanted an object`);
  return value;
}

function listAt(value: Json | undefined, part: string): Json[] {
  if (!Array.isArray(value)) throw unsupported(part, 'is not a list');
  return value;
}

/** A part's text; throws for anything else. `fallback` is for a key that is left out. */
export function textAt(value: Json | undefined, part: string, fallback?: string): string {
  const text = value ?? fallback;
  if (typeof text !== 'string') throw unsupported(part, `is ${JSON.stringify(value) ?? 'missing'}, wanted text`);
  return text;
}

export function typeOf(part: JsonObject): string {
  return typeof part.type === 'string' ? part.type : JSON.stringify(part.type ?? null);
}

/** Parses, checks and rewrites; throws ERR_TOKENIZER_UNSUPPORTED naming the part. */
export function readTokenizerJson(text: string): TokenizerJson {
  let root: JsonObject;
  try {
    root = objectAt(JSON.parse(text) as Json, 'the file');
  } catch (error) {
    if (OpenLoraError.is(error)) throw error;
    throw unsupported('the file', `is not JSON: ${(error as Error).message}`);
  }
  const model = objectAt(root.model, 'model');
  checkModel(model);
  const vocab = readVocab(objectAt(model.vocab, 'model.vocab'));
  const merges = readMerges(listAt(model.merges, 'model.merges'), vocab);
  const { pre, isByteLevel } = takeByteLevel(rewritePreTokenizer(root.pre_tokenizer ?? null));
  const bytePairs = {
    isByteLevel,
    vocab,
    merges: merges.ids,
    byteFallback: model.byte_fallback === true,
    unknownToken: typeof model.unk_token === 'string' ? model.unk_token : undefined,
    fusesUnknown: model.fuse_unk === true,
    ignoresMerges: model.ignore_merges === true,
  };
  const canSplit = !bytePairs.ignoresMerges && !isByteLevel && vocab.has('▁'); // else unknown ones would fuse over it
  const library: JsonObject = {
    added_tokens: [], // added-tokens.ts finds them
    normalizer: rewriteNormalizer(root.normalizer ?? null),
    pre_tokenizer: canSplit ? splitAtSpaces(pre, merges.beforeSpaces) : pre,
    model: { type: 'BPE', vocab: {}, merges: [] }, // byte-pairs.ts does it
    post_processor: rewritePostProcessor(root.post_processor ?? null),
    decoder: null, // decoding is by the token table
  };
  return { bytePairs, addedTokens: readAddedTokens(root.added_tokens ?? []), decoder: root.decoder ?? null, library };
}

function checkModel(model: JsonObject): void {
  const type = model.type ?? (Array.isArray(model.merges) ? 'BPE' : null);
  if (type !== 'BPE') throw unsupported('model.type', `is ${JSON.stringify(type)}, supported: "BPE"`);
  for (const key of ['dropout', 'continuing_subword_prefix', 'end_of_word_suffix']) {
    const value = model[key];
    if (value !== null && value !== undefined && value !== '' && value !== 0) {
      throw unsupported(`model.${key}`, `is ${JSON.stringify(value)}, supported: null`);
    }
  }
}

function checkId(id: Json | undefined, part: string): number {
  if (typeof id !== 'number' || !Number.isInteger(id) || id < 0 || id >= TOKEN_ID_MAX) {
    throw unsupported(part, `has id ${JSON.stringify(id)}, wanted an integer in [0, ${TOKEN_ID_MAX})`);
  }
  return id;
}

function readVocab(vocab: JsonObject): Map<string, number> {
  const tokens = new Map<string, number>();
  for (const [token, id] of Object.entries(vocab)) {
    tokens.set(token, checkId(id, `model.vocab[${JSON.stringify(token)}]`));
  }
  return tokens;
}

interface Merges {
  /** Of each merge the ids of its two tokens, and of what they join to. */
  ids: Uint32Array;
  /** Characters behind which one puts ▁. Gemma 3 has one such merge of half a million. */
  beforeSpaces: Set<string>;
}

/** Refused, as by the Rust library: a merge of tokens that aren't there, which would silently never happen. */
function readMerges(list: Json[], vocab: Map<string, number>): Merges {
  const merges = { ids: new Uint32Array(list.length * 3), beforeSpaces: new Set<string>() };
  const idOf = (token: string, i: number): number => {
    const id = vocab.get(token);
    if (id !== undefined) return id;
    throw unsupported(`model.merges[${i}]`, `has the token ${JSON.stringify(token)}, wanted one of model.vocab`);
  };
  list.forEach((merge, i) => {
    const [left, right] = readMerge(merge, i);
    if (right.startsWith('▁') && !left.endsWith('▁')) merges.beforeSpaces.add(Array.from(left).at(-1) ?? '');
    merges.ids[3 * i] = idOf(left, i);
    merges.ids[3 * i + 1] = idOf(right, i);
    merges.ids[3 * i + 2] = idOf(left + right, i);
  });
  return merges;
}

function readMerge(merge: Json, i: number): [string, string] {
  const pieces = typeof merge === 'string' ? merge.split(' ') : merge;
  const [left, right] = Array.isArray(pieces) && pieces.length === 2 ? pieces : [];
  if (typeof left === 'string' && typeof right === 'string' && left !== '' && right !== '') return [left, right];
  throw unsupported(`model.merges[${i}]`, `is ${JSON.stringify(merge)}, wanted a pair`);
}

function readAddedTokens(list: Json): AddedTokenJson[] {
  const tokens = listAt(list, 'added_tokens').map((entry, i) => {
    const token = objectAt(entry, `added_tokens[${i}]`);
    if (typeof token.content !== 'string' || token.content === '') {
      throw unsupported(`added_tokens[${i}].content`, `is ${JSON.stringify(token.content)}, wanted text`);
    }
    if (token.single_word === true) throw unsupported(`added_tokens[${i}].single_word`, 'is true, supported: false');
    const special = token.special === true;
    const isNormalized = typeof token.normalized === 'boolean' ? token.normalized : !special;
    const [lstrip, rstrip] = [token.lstrip === true, token.rstrip === true];
    const id = checkId(token.id, `added_tokens[${i}]`);
    return { id, content: token.content, special, isNormalized, lstrip, rstrip };
  });
  return tokens.sort((a, b) => a.id - b.id);
}

function rewriteNormalizer(part: Json): Json {
  if (part === null) return null;
  const normalizer = objectAt(part, 'normalizer');
  switch (typeOf(normalizer)) {
    case 'NFC':
    case 'NFD':
    case 'NFKC':
    case 'NFKD':
    case 'Prepend':
      return normalizer;
    case 'Sequence':
      return { ...normalizer, normalizers: listAt(normalizer.normalizers, 'normalizer').map(rewriteNormalizer) };
    case 'Replace':
      return replacePart(normalizer.pattern, textAt(normalizer.content, 'normalizer.content'));
    case 'Strip': {
      const sides: Json[] = [];
      if (normalizer.strip_left === true) sides.push(replacePart({ Regex: String.raw`\A\s+` }, ''));
      if (normalizer.strip_right === true) sides.push(replacePart({ Regex: String.raw`\s+\z` }, ''));
      return { type: 'Sequence', normalizers: sides };
    }
    default:
      throw unsupported('normalizer', `is ${typeOf(normalizer)}, which is not supported`);
  }
}

function replacePart(given: Json | undefined, content: string): Json {
  const regex = isObject(given) ? given.Regex : undefined;
  const pattern = typeof regex === 'string' ? { Regex: withoutPossessives(regex) } : (given ?? null);
  return { type: 'Replace', pattern, content: content.replaceAll('$', '$$$$') };
}

function splitPart(pattern: string, isMatchesOnly = false): JsonObject {
  const regex = withoutPossessives(pattern);
  const behavior = isMatchesOnly ? 'Removed' : 'Isolated';
  return { type: 'Split', pattern: { Regex: regex }, behavior, invert: isMatchesOnly };
}

function sequencePart(...pretokenizers: Json[]): Json {
  return { type: 'Sequence', pretokenizers };
}

function rewritePreTokenizer(part: Json): Json {
  if (part === null) return null;
  const pre = objectAt(part, 'pre_tokenizer');
  switch (typeOf(pre)) {
    case 'Sequence':
      return sequencePart(...listAt(pre.pretokenizers, 'pre_tokenizer').map(rewritePreTokenizer));
    case 'ByteLevel': {
      const steps: Json[] = [];
      if (pre.add_prefix_space === true) steps.push(replacePart({ Regex: String.raw`\A(?=[^ ])` }, ' '));
      if (pre.use_regex !== false) steps.push(splitPart(GPT2_PATTERN));
      return sequencePart(...steps, { type: 'ByteLevel', add_prefix_space: false, use_regex: false });
    }
    case 'Digits':
      return splitPart(pre.individual_digits === true ? String.raw`\p{N}` : String.raw`\p{N}+`);
    case 'Whitespace':
      return splitPart(String.raw`\w+|[^\w\s]+`, true);
    case 'WhitespaceSplit':
      return splitPart(String.raw`\S+`, true);
    case 'Punctuation':
      return rewriteSplit(PUNCTUATION, textAt(pre.behavior, 'pre_tokenizer.behavior', 'Isolated'), false);
    case 'Split': {
      const pattern = objectAt(pre.pattern, 'pre_tokenizer.pattern');
      const regex =
        typeof pattern.Regex === 'string'
          ? pattern.Regex
          : escapeRegex(textAt(pattern.String, 'pre_tokenizer.pattern'));
      return rewriteSplit(regex, textAt(pre.behavior, 'pre_tokenizer.behavior'), pre.invert === true);
    }
    case 'Metaspace':
      return rewriteMetaspace(pre);
    default:
      throw unsupported('pre_tokenizer', `is ${typeOf(pre)}, which is not supported`);
  }
}

/** A last step that spells words by their bytes is left to byte-pairs.ts, which does it once for each word. */
function takeByteLevel(pre: Json): { pre: Json; isByteLevel: boolean } {
  if (!isObject(pre) || !Array.isArray(pre.pretokenizers)) return { pre, isByteLevel: false };
  const steps = pre.pretokenizers;
  const last = steps.at(-1) ?? null;
  if (isObject(last) && last.type === 'ByteLevel')
    return { pre: sequencePart(...steps.slice(0, -1)), isByteLevel: true };
  const inner = takeByteLevel(last);
  return { pre: sequencePart(...steps.slice(0, -1), inner.pre), isByteLevel: inner.isByteLevel };
}

function escapeRegex(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\/-]/g, String.raw`\$&`);
}

/** Pieces of a Split: see SplitDelimiterBehavior in the Rust library's normalizer.rs. */
function rewriteSplit(regex: string, behavior: string, isInverted: boolean): Json {
  const other = String.raw`(?:(?!${regex})[\s\S])`;
  switch (behavior) {
    case 'Isolated':
      return splitPart(regex);
    case 'Removed':
      return { type: 'Split', pattern: { Regex: withoutPossessives(regex) }, behavior, invert: isInverted };
    case 'Contiguous':
      if (!isInverted) return splitPart(`(?:${regex})+`);
      break;
    case 'MergedWithPrevious':
      if (!isInverted) return splitPart(`${other}*(?:${regex})|${other}+`, true);
      break;
    case 'MergedWithNext':
      if (!isInverted) return splitPart(`(?:${regex})${other}*|${other}+`, true);
      break;
  }
  throw unsupported('pre_tokenizer', `splits ${behavior}${isInverted ? ' inverted' : ''}, which is not supported`);
}

/**
 * SentencePiece models take the whole text for one word. It may be cut before ▁ but behind the characters that a merge joins to
 * one: words are shorter, and come again.
 */
function splitAtSpaces(pre: Json, beforeSpaces: ReadonlySet<string>): Json {
  const isJoined = beforeSpaces.size > 0 ? `(?:(?<=${[...beforeSpaces].map(escapeRegex).join('|')})▁+[^▁]*)*` : '';
  const cut = splitPart(`(?:▁+[^▁]*|[^▁]+)${isJoined}`, true);
  return pre === null ? cut : sequencePart(pre, cut);
}

function rewriteMetaspace(pre: JsonObject): Json {
  const replacement = textAt(pre.replacement, 'pre_tokenizer.replacement', '▁');
  const scheme = pre.prepend_scheme ?? (pre.add_prefix_space === false ? 'never' : 'always');
  const metaspace: Json = { type: 'Metaspace', replacement, prepend_scheme: scheme };
  if (pre.split === false) return metaspace;
  const mark = escapeRegex(replacement);
  return sequencePart(metaspace, splitPart(`${mark}[^${mark}]*|[^${mark}]+`, true));
}

/** A template names a special token by a label; the library takes the label for the token itself. */
function rewritePostProcessor(part: Json): Json {
  if (part === null) return null;
  const post = objectAt(part, 'post_processor');
  switch (typeOf(post)) {
    case 'ByteLevel':
    case 'BertProcessing':
    case 'RobertaProcessing':
      return post;
    case 'Sequence':
      return { ...post, processors: listAt(post.processors, 'post_processor').map(rewritePostProcessor) };
    case 'TemplateProcessing': {
      const labels = isObject(post.special_tokens) ? post.special_tokens : {};
      const single = listAt(post.single, 'post_processor.single').flatMap((item): Json[] => {
        const special = isObject(item) ? item.SpecialToken : undefined;
        if (!isObject(special)) return [item];
        const label = labels[textAt(special.id, 'post_processor.single')];
        const tokens = isObject(label) && Array.isArray(label.tokens) ? label.tokens : [special.id ?? null];
        return tokens.map((id): Json => ({ SpecialToken: { id, type_id: 0 } }));
      });
      return { ...post, single };
    }
    default:
      throw unsupported('post_processor', `is ${typeOf(post)}, which is not supported`);
  }
}
