// The token → bytes table, and decoding by it.
//
// The text of a sequence is, but for its beginning, the concatenation of what each token stands for, so the engine streams
// from a table of bytes and cuts only at whole characters. Two decoders also drop the space that encoding put in front of
// the text (Llama 2's `Strip`, `Metaspace`). That is a matter of a whole sequence's first token: `decodeTokens` does it as
// `tokenizers` does. An answer that is streamed after a prompt is no beginning, and nothing is dropped from it.
//
// Where bytes are not valid UTF-8, each maximal invalid sequence becomes one U+FFFD (WHATWG). `tokenizers`' ByteFallback gives
// one for each byte of a run of byte tokens instead, the valid ones too; so does `decodeTokens`, and a stream, which can't
// know how a run will end, does not.

import { isUtf8 } from 'node:buffer';
import { OpenLoraError } from '../errors.js';
import { isObject, textAt, typeOf, unsupported, type Json, type JsonObject } from './tokenizer-json.js';

/** What a decoder drops at the beginning of a sequence. */
export type LeadingRule =
  | { kind: 'none' }
  /** Up to `count` times the one-byte character `byte`. */
  | { kind: 'strip'; byte: number; count: number }
  /** All spaces of the first token that stand for ▁. `exact` holds the tokens that have other spaces as well. */
  | { kind: 'metaspace'; exact: Map<number, Uint8Array> };

/** Plain values: it is posted from the worker. */
export interface TokenTable {
  /** Of token `id`: `bytes[offsets[id] … offsets[id + 1])`; empty for special tokens and ids without a token. */
  bytes: Uint8Array;
  /** `[vocabSize + 1]` */
  offsets: Uint32Array;
  /** Bytes of the special tokens. */
  special: Map<number, Uint8Array>;
  leading: LeadingRule;
  /** The byte tokens (`<0x0A>`) of a decoder with ByteFallback. */
  byteTokens: Set<number>;
}

interface TokenDecoder {
  hasByteFallback: boolean;
  /** The bytes that a token stands for wherever it isn't first. */
  toBytes(token: string): Uint8Array;
  /** The bytes when it is first, for `metaspace`. */
  toFirstBytes?(token: string): Uint8Array;
  strip?: { byte: number; count: number };
}

const utf8 = new TextEncoder();
const SPACE = 0x20;

/** GPT-2's printable stand-ins: character code → byte, -1 where a character stands for none. */
const BYTE_OF_CHARACTER = ((): Int16Array => {
  const table = new Int16Array(512).fill(-1);
  const isPlain = (b: number): boolean => (b > 32 && b < 127) || (b > 160 && b < 173) || b > 173;
  let next = 256;
  for (let b = 0; b < 256; b++) table[isPlain(b) ? b : next++] = b;
  return table;
})();

const CHARACTER_OF_BYTE = Array.from({ length: 256 }, (_, byte) =>
  String.fromCharCode(BYTE_OF_CHARACTER.indexOf(byte)),
);

/** The text as byte-level vocabularies spell it: a character for each byte of its UTF-8. */
export function toByteCharacters(text: string): string {
  let characters = '';
  for (const byte of utf8.encode(text)) characters += CHARACTER_OF_BYTE[byte];
  return characters;
}

/** A token with a character that stands for no byte (an added token with a space, say) is its own text. */
function byteLevelBytes(token: string): Uint8Array {
  const bytes = new Uint8Array(token.length);
  for (let i = 0; i < token.length; i++) {
    const byte = BYTE_OF_CHARACTER[token.charCodeAt(i)] ?? -1;
    if (byte < 0) return utf8.encode(token);
    bytes[i] = byte;
  }
  return bytes;
}

function flatten(decoder: Json): JsonObject[] {
  if (!isObject(decoder)) {
    throw unsupported('decoder', `is ${JSON.stringify(decoder)}, wanted a byte-level or SentencePiece decoder`);
  }
  if (typeOf(decoder) !== 'Sequence') return [decoder];
  return (Array.isArray(decoder.decoders) ? decoder.decoders : []).flatMap(flatten);
}

/** One step on the text of a token; a Uint8Array once the text has become bytes. */
type TokenStep = (text: string) => string | Uint8Array;

/** Reads a decoder as per-token steps and what follows their joining. Throws ERR_TOKENIZER_UNSUPPORTED. */
function readDecoder(decoder: Json): TokenDecoder {
  const steps: TokenStep[] = [];
  let firstSteps: TokenStep[] | undefined;
  let strip: TokenDecoder['strip'];
  let isJoined = false;
  let hasBytes = false;
  const add = (step: TokenStep, firstStep = step): void => {
    if (firstStep !== step) firstSteps ??= [...steps];
    firstSteps?.push(firstStep);
    steps.push(step);
  };
  for (const part of flatten(decoder)) {
    const type = typeOf(part);
    const refuse = (why: string): OpenLoraError => unsupported('decoder', `has ${type} ${why}`);
    if (type === 'Fuse') {
      isJoined = true;
    } else if (type === 'Strip' && isJoined) {
      const content = textAt(part.content, 'decoder.content');
      const count = Number(part.start ?? 0);
      if (Number(part.stop ?? 0) !== 0) throw refuse('at the end of a text, which is not supported');
      if (strip || content.length !== 1 || content > '\x7f') throw refuse('other than once, of one ASCII character');
      if (count > 0) strip = { byte: content.charCodeAt(0), count };
    } else if (isJoined) {
      throw refuse('after the tokens are joined, which is not supported');
    } else if (type === 'ByteLevel') {
      if (steps.length > 0) throw refuse('after other steps, which is not supported');
      add(byteLevelBytes);
      isJoined = true;
    } else if (type === 'ByteFallback') {
      add(byteFallback);
      hasBytes = true;
    } else if (type === 'Metaspace') {
      const replacement = textAt(part.replacement, 'decoder.replacement', '▁');
      const isNever = (part.prepend_scheme ?? (part.add_prefix_space === false ? 'never' : 'always')) === 'never';
      const toSpaces = (text: string): string => text.replaceAll(replacement, () => ' ');
      add(toSpaces, isNever ? toSpaces : (text) => text.replaceAll(replacement, ''));
    } else if (hasBytes) {
      throw refuse('after ByteFallback, which is not supported');
    } else if (type === 'Replace') {
      const pattern = isObject(part.pattern) ? part.pattern.String : undefined;
      const content = textAt(part.content, 'decoder.content');
      if (typeof pattern !== 'string' || pattern === '') throw refuse('by something else than a string');
      add((text) => text.replaceAll(pattern, () => content));
    } else {
      throw refuse('which is not supported');
    }
  }
  const run =
    (list: TokenStep[]) =>
    (token: string): Uint8Array => {
      let value: string | Uint8Array = token;
      for (const step of list) if (typeof value === 'string') value = step(value);
      return typeof value === 'string' ? utf8.encode(value) : value;
    };
  return {
    hasByteFallback: hasBytes,
    toBytes: run(steps),
    ...(firstSteps && { toFirstBytes: run(firstSteps) }),
    ...(strip && { strip }),
  };
}

const BYTE_TOKEN = /^<0x[0-9A-Fa-f]{2}>$/;

function byteFallback(text: string): string | Uint8Array {
  return BYTE_TOKEN.test(text) ? Uint8Array.of(parseInt(text.slice(3, 5), 16)) : text;
}

/** Grows by doubling; 150,000 tokens are about a megabyte. */
class ByteSink {
  #buffer = new Uint8Array(1 << 16);
  length = 0;

  push(bytes: Uint8Array): void {
    while (this.length + bytes.length > this.#buffer.length) {
      const grown = new Uint8Array(this.#buffer.length * 2);
      grown.set(this.#buffer);
      this.#buffer = grown;
    }
    this.#buffer.set(bytes, this.length);
    this.length += bytes.length;
  }

  take(): Uint8Array {
    return this.#buffer.slice(0, this.length);
  }
}

export interface TokenTableSource {
  vocab: ReadonlyMap<string, number>;
  /** Go before the vocabulary. */
  addedTokens: readonly { id: number; text: string; special: boolean }[];
  decoder: Json;
}

/**
 * Builds the table for the ids below `vocabSize` (default: all that the tokenizer has).
 * Throws ERR_TOKENIZER_UNSUPPORTED naming the decoder's part.
 */
export function buildTokenTable(source: TokenTableSource, vocabSize?: number): TokenTable {
  const decoder = readDecoder(source.decoder);
  const tokens: (string | undefined)[] = [];
  for (const [token, id] of source.vocab) tokens[id] = token;
  for (const { id, text } of source.addedTokens) tokens[id] = text;
  const isSpecial = new Set(source.addedTokens.filter(({ special }) => special).map(({ id }) => id));
  const size = vocabSize ?? tokens.length;
  const offsets = new Uint32Array(size + 1);
  const sink = new ByteSink();
  const special = new Map<number, Uint8Array>();
  const exact = new Map<number, Uint8Array>();
  const byteTokens = new Set<number>();
  for (let id = 0; id < size; id++) {
    const token = tokens[id];
    if (token !== undefined) {
      const bytes = decoder.toBytes(token);
      if (decoder.hasByteFallback && BYTE_TOKEN.test(token)) byteTokens.add(id);
      if (isSpecial.has(id)) special.set(id, bytes);
      else sink.push(bytes);
      if (decoder.toFirstBytes && token.includes(' ')) exact.set(id, decoder.toFirstBytes(token));
    }
    offsets[id + 1] = sink.length;
  }
  const leading: LeadingRule = decoder.strip
    ? { kind: 'strip', ...decoder.strip }
    : decoder.toFirstBytes
      ? { kind: 'metaspace', exact }
      : { kind: 'none' };
  return { bytes: sink.take(), offsets, special, leading, byteTokens };
}

/**
 * One more than the largest id that the tokenizer has, of which `lastAdded` may be one without text: an embedding may have
 * more rows, which stand for nothing.
 */
export function vocabularyOf(offsets: Uint32Array, lastAdded = -1): number {
  const rows = offsets.length - 1;
  let end = rows;
  while (end > 0 && offsets[end] === offsets[end - 1]) end--;
  return Math.min(rows, Math.max(end, lastAdded + 1));
}

const REPLACEMENT = utf8.encode('\ufffd');

/** Bytes of decoded pieces; a run of byte tokens that is not valid UTF-8 becomes one U+FFFD for each of them. */
class PieceSink {
  readonly #bytes: Uint8Array;
  #length = 0;
  /** Where the run of byte tokens at the end began, and of how many it is. */
  #runBegin = 0;
  #runTokens = 0;
  isEmpty = true;

  /** `length` bounds what comes, with a REPLACEMENT for each byte token. */
  constructor(length: number) {
    this.#bytes = new Uint8Array(length);
  }

  /** Byte by byte: a view of each token would make work for the collector. */
  push(source: Uint8Array, begin: number, end: number, isByteToken: boolean): void {
    this.isEmpty = false;
    if (!isByteToken && this.#runTokens > 0) this.#endRun();
    if (isByteToken && this.#runTokens++ === 0) this.#runBegin = this.#length;
    const bytes = this.#bytes;
    let at = this.#length;
    for (let i = begin; i < end; i++) bytes[at++] = source[i]!;
    this.#length = at;
  }

  take(): Uint8Array {
    if (this.#runTokens > 0) this.#endRun();
    return this.#bytes.subarray(0, this.#length);
  }

  #endRun(): void {
    if (!isUtf8(this.#bytes.subarray(this.#runBegin, this.#length))) {
      this.#length = this.#runBegin;
      for (let left = this.#runTokens; left > 0; left--, this.#length += REPLACEMENT.length) {
        this.#bytes.set(REPLACEMENT, this.#length);
      }
    }
    this.#runTokens = 0;
  }
}

/** One for all: making one takes longer than decoding a short text. */
const utf8Text = new TextDecoder('utf-8', { ignoreBOM: true });

/** Text of a whole sequence. Throws ERR_TOKEN_RANGE. */
export function decodeTokens(table: TokenTable, ids: ArrayLike<number>, skipSpecialTokens: boolean): string {
  const { bytes, offsets, special, leading, byteTokens } = table;
  const sink = new PieceSink(decodedLength(table, ids));
  for (let i = 0; i < ids.length; i++) {
    const id = ids[i]!;
    const specialBytes = special.get(id);
    if (specialBytes && skipSpecialTokens) continue;
    const begin = specialBytes ? 0 : offsets[id]!;
    const end = specialBytes ? specialBytes.length : offsets[id + 1]!;
    if (begin === end) continue;
    if (leading.kind === 'metaspace' && sink.isEmpty) {
      const piece =
        leading.exact.get(id) ?? (specialBytes ?? bytes.subarray(begin, end)).filter((byte) => byte !== SPACE);
      sink.push(piece, 0, piece.length, byteTokens.has(id));
    } else {
      sink.push(specialBytes ?? bytes, begin, end, byteTokens.has(id));
    }
  }
  const text = sink.take();
  let start = 0;
  if (leading.kind === 'strip') while (start < leading.count && text[start] === leading.byte) start++;
  return utf8Text.decode(text.subarray(start));
}

/** Bytes that the text of `ids` has at most. Throws ERR_TOKEN_RANGE. */
function decodedLength({ offsets, special, byteTokens }: TokenTable, ids: ArrayLike<number>): number {
  const vocabSize = offsets.length - 1;
  let length = 0;
  for (let i = 0; i < ids.length; i++) {
    const id = ids[i];
    if (id === undefined || !Number.isInteger(id) || id < 0 || id >= vocabSize) {
      throw new OpenLoraError('ERR_TOKEN_RANGE', `ids[${i}] is ${String(id)}, wanted an integer in [0, ${vocabSize})`);
    }
    length += offsets[id + 1]! - offsets[id]!;
    if (special.size > 0) length += special.get(id)?.length ?? 0;
    if (byteTokens.has(id)) length += REPLACEMENT.length;
  }
  return length;
}
