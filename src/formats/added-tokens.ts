// Finds the added tokens of a tokenizer in a text, as `tokenizers` does: the leftmost, and of those the longest.

import type { AddedTokenJson } from './tokenizer-json.js';

/** A part of a text: plain, or `token`'s (which may stand for the space around it as well). */
export interface Piece {
  text: string;
  token: AddedTokenJson | undefined;
  /** Where it begins in the text that was split. */
  start: number;
}

interface Node {
  next: Map<number, Node>;
  token: AddedTokenJson | undefined;
}

/** Unicode's White_Space; JS's \s has U+FEFF and lacks U+0085. */
const SPACE = /^\p{White_Space}$/u;

/** A trie over UTF-16 units. */
export class AddedTokenFinder {
  readonly #root: Node = { next: new Map(), token: undefined };

  constructor(tokens: readonly { token: AddedTokenJson; text: string }[]) {
    for (const { token, text } of tokens) {
      let node = this.#root;
      for (let i = 0; i < text.length; i++) {
        const unit = text.charCodeAt(i);
        let next = node.next.get(unit);
        if (!next) node.next.set(unit, (next = { next: new Map(), token: undefined }));
        node = next;
      }
      if (node !== this.#root) node.token ??= token;
    }
  }

  /** Where the longest token that begins at `start` ends, and which it is. */
  #matchAt(text: string, start: number): { token: AddedTokenJson; end: number } | undefined {
    let found: { token: AddedTokenJson; end: number } | undefined;
    let node = this.#root.next.get(text.charCodeAt(start));
    for (let end = start + 1; node; end++) {
      if (node.token) found = { token: node.token, end };
      node = node.next.get(text.charCodeAt(end)); // NaN, which is no key, behind the end
    }
    return found;
  }

  /** All of `text`, in order. A token that `isText` says yes to, at its place, is none there. */
  split(text: string, isText: (token: AddedTokenJson, start: number) => boolean): Piece[] {
    const pieces: Piece[] = [];
    let from = 0;
    const pushText = (end: number): void => {
      if (end > from) pieces.push({ text: text.slice(from, end), token: undefined, start: from });
    };
    for (let i = 0; i < text.length;) {
      const match = this.#matchAt(text, i);
      if (!match || isText(match.token, i)) {
        i++;
        continue;
      }
      // A token of spaces that another one has taken in is found all the same, and text goes on behind it.
      const { token } = match;
      let [start, end] = [i, match.end];
      if (token.lstrip) while (start > from && SPACE.test(text[start - 1] ?? '')) start--;
      if (token.rstrip) while (SPACE.test(text[end] ?? '')) end++;
      pushText(start);
      pieces.push({ text: text.slice(start, end), token, start });
      from = end;
      i = match.end;
    }
    pushText(text.length);
    return pieces;
  }
}
