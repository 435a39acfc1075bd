// Which characters of a rendered conversation came from its messages and tools, and which from the template.
//
// Where a special token could begin, the inputs' characters are replaced by marks, and the conversation is rendered once
// more: a mark is one UTF-16 unit as its character is, and compares as it (`plain`), so that the same text comes out, with
// marks where the inputs' characters went. A mark is the lone low surrogate 0xDC00 + the character, which no text has.

import type { Value } from './chat-template-value.js';

const MARK = 0xdc00;
/** Characters from here on have no mark; no special token is known that begins with one. */
const MARKABLE_END = 0x400;
const MARKS = /\p{Surrogate}/gu;
const HAS_MARK = /\p{Surrogate}/u;

export function hasMark(text: string): boolean {
  return HAS_MARK.test(text);
}

/** The text with its marks taken back. */
export function plain(text: string): string {
  return text.replace(MARKS, (mark) => String.fromCharCode(mark.charCodeAt(0) - MARK));
}

/** Where the marks are. */
export function marksIn(text: string): Set<number> {
  return new Set(Array.from(text.matchAll(MARKS), ({ index }) => index));
}

/**
 * Replaces what begins a special token: in whichever place (`everywhere`), or where the whole token stands. What it gives
 * throws for a text with a token that can't be marked.
 */
export function marker(specialTokens: readonly string[], everywhere: boolean): (text: string) => string {
  const isMarkable = (token: string): boolean => token.charCodeAt(0) < MARKABLE_END;
  const tokens = specialTokens.filter(isMarkable);
  const unmarkable = specialTokens.filter((token) => !isMarkable(token));
  const firsts = new Set(tokens.map((token) => token.charAt(0)));
  const isMarked = (text: string, i: number): boolean =>
    firsts.has(text.charAt(i)) && (everywhere || tokens.some((token) => text.startsWith(token, i)));
  return (text) => {
    const lost = unmarkable.find((token) => text.includes(token));
    if (lost !== undefined) throw new Error(`${JSON.stringify(lost)} can't be marked`);
    let marked = '';
    let from = 0;
    for (let i = 0; i < text.length; i++) {
      if (!isMarked(text, i)) continue;
      marked += text.slice(from, i) + String.fromCharCode(MARK + text.charCodeAt(i));
      from = i + 1;
    }
    return marked + text.slice(from);
  };
}

/** A copy whose texts, keys too, went through `mark`. */
export function markTexts(value: Value, mark: (text: string) => string): Value {
  if (typeof value === 'string') return mark(value);
  if (Array.isArray(value)) return value.map((item) => markTexts(item, mark));
  if (value instanceof Map) {
    return new Map(Array.from(value, ([key, item]) => [markTexts(key, mark), markTexts(item, mark)]));
  }
  return value;
}

/** Pieces between the places where `separator` stands in the text, whether marked or not; a marked piece keeps its marks. */
export function splitText(text: string, separator: string): string[] {
  if (!hasMark(text) && !hasMark(separator)) return text.split(separator);
  const [whole, by] = [plain(text), plain(separator)];
  const pieces: string[] = [];
  let from = 0;
  for (let at = whole.indexOf(by); at >= 0; at = whole.indexOf(by, from)) {
    pieces.push(text.slice(from, at));
    from = at + by.length;
  }
  return [...pieces, text.slice(from)];
}
