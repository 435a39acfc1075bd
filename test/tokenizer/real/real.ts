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
  /** Of longTexts: tokens, then hashes of ids and of decoded text. */
  long: [count: number, ids: string, decoded: string][];
  decodes: string[];
  /** The first of the 256 byte tokens, where the decoder has ByteFallback. */
  firstByte: number | null;
  /** Per conversation: ids of its text, and ids where special tokens in messages and tools stay text; null: refused. */
  chats: ChatIds[];
  /** The same of spelled.json. */
  spelled: ChatIds[];
}

export type ChatIds = [all: string, safe: string] | null;

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

const hasNoText = (message: ChatMessage): boolean => !!message.tool_calls?.length && message.content === null;

/** conversations.json, then those without system messages, then those whose calls have empty text in place of none. */
export function readConversations(): Conversation[] {
  const all = readHere<Conversation[]>('conversations.json');
  const withoutSystem = all.flatMap((one) => {
    const messages = one.messages.filter(({ role }) => role !== 'system');
    const isTwin = messages.length > 0 && messages.length < one.messages.length;
    return isTwin ? [{ ...one, name: `${one.name}, no system`, messages }] : [];
  });
  const both = [...all, ...withoutSystem];
  const withText = both.flatMap((one) => {
    const messages = one.messages.map((message) => (hasNoText(message) ? { ...message, content: '' } : message));
    return one.messages.some(hasNoText) ? [{ ...one, name: `${one.name}, empty text`, messages }] : [];
  });
  return [...both, ...withText];
}

/** spelled.json with a tokenizer's special tokens in it, those that its template writes first. */
export function spelledConversations(special: string[], template: string): Conversation[] {
  const tokens = [true, false].flatMap((isOwn) => special.filter((token) => template.includes(token) === isOwn));
  return spelled(readHere<Conversation[]>('spelled.json'), tokens) as Conversation[];
}

/** `⟦n⟧` becomes a token, `⟦n<⟧` its first half and `⟦n>⟧` the other. */
function spelled(value: unknown, tokens: string[]): unknown {
  if (typeof value === 'string') {
    return value.replace(/⟦(\d+)([<>]?)⟧/g, (_, n: string, half: string) => {
      const token = Array.from(tokens[Number(n) % tokens.length]!);
      const middle = Math.floor(token.length / 2);
      return token.slice(half === '>' ? middle : 0, half === '<' ? middle : undefined).join('');
    });
  }
  if (Array.isArray(value)) return value.map((one) => spelled(one, tokens));
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, one]) => [spelled(key, tokens) as string, spelled(one, tokens)]),
  );
}

/** Repeats of 100,000, and long mixtures of the corpus's pieces, as in make-references.py. */
export function longTexts(): string[] {
  const below = minstd();
  const { long } = readHere<{ long: { pieces: string[]; count: number }[] }>('corpus.json');
  return long.map(({ pieces, count }) => {
    let text = '';
    for (let i = 0; i < count; i++) text += pieces[below(pieces.length)];
    return text;
  });
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
