// The real tokenizers, templates and texts, and the hashes that make-references.py compares by.

import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { ChatMessage, Tool } from '../../../src/formats/tokenizer-types.js';
import { TOKENIZERS, prepare } from './prepare.mjs';

export { TOKENIZERS };

const here = new URL('./', import.meta.url);
const laidAt = fileURLToPath(new URL(`../../../.cache/tokenizers-${process.pid}`, here));

export interface References {
  file: string;
  size: number;
  /** tokens, then hashes of: ids, ids without BOS and the like, those with no special token recognised, decoded texts */
  cases: [count: number, ids: string, plain: string, literal: string, decoded: string][];
  decodes: string[];
  /** The first of the 256 byte tokens, where the decoder has ByteFallback. */
  firstByte: number | null;
  /** Per conversation: ids of its text, and ids where special tokens in messages and tools stay text; null: refused. */
  chats: ([all: string, safe: string] | null)[];
}

export interface Conversation {
  name: string;
  messages: ChatMessage[];
  tools?: Tool[];
}

/** The folder of prepare.mjs, laid out once for each process. */
export function realFolder(): Promise<string> {
  return (laid ??= prepare(laidAt).then(() => laidAt));
}
let laid: Promise<string> | undefined;

export function readHere<T>(name: string): T {
  return JSON.parse(readFileSync(new URL(name, here), 'utf8')) as T;
}

export function digest(text: string | Uint8Array, length = 12): string {
  return createHash('sha256').update(text).digest('hex').slice(0, length);
}
export const idDigest = (ids: ArrayLike<number>): string => digest(Array.from(ids).join(','));

/** MINSTD, as in make-references.py: numbers below n. */
export function minstd(): (n: number) => number {
  let state = 1;
  return (n) => (state = (state * 48271) % 0x7fffffff) % n;
}

/** The texts of make-references.py, in its order. */
export function corpusTexts(special: string[]): string[] {
  const source = readHere<{ texts: string[]; repeats: [string, number][]; mixed: string[] }>('corpus.json');
  const texts = [...source.texts, ...source.repeats.map(([text, times]) => text.repeat(times))];
  for (const token of special.slice(0, 12)) {
    const [head, tail] = [Array.from(token).slice(1).join(''), Array.from(token).slice(0, -1).join('')];
    texts.push(token, `a${token}b`, ` ${token} \n`, token + token, `x ${head}${tail} y`);
  }
  const below = minstd();
  for (let i = 0; i < 400; i++) {
    let text = '';
    for (let left = 1 + below(24); left > 0; left--) text += source.mixed[below(source.mixed.length)];
    texts.push(text);
  }
  return texts;
}
