// A byte-level tokenizer of a real one's size, with merges and a chat template.

import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const TOKENS = 145_000;
/** As many as Gemma 3 adds; the first 256 of them are special, as many as Llama 3 has. */
const ADDED_TOKENS = 6400;
const SPECIAL_TOKENS = 256;

/** Each token but the first ones merges two older ones. */
function tokenizerJson(): object {
  const characters = Array.from({ length: 256 }, (_, b) => {
    const isPlain = (b > 32 && b < 127) || (b > 160 && b < 173) || b > 173;
    return isPlain ? String.fromCharCode(b) : undefined;
  });
  let next = 256;
  const tokens = characters.map((character) => character ?? String.fromCharCode(next++));
  const seen = new Set(tokens);
  const merges: [string, string][] = [];
  let state = 1;
  const random = (n: number): number => (state = (state * 48271) % 0x7fffffff) % n;
  while (tokens.length < TOKENS) {
    const pair: [string, string] = [tokens[random(tokens.length)] ?? '', tokens[random(256)] ?? ''];
    const merged = pair.join('');
    if (merged.length > 12 || seen.has(merged)) continue;
    seen.add(merged);
    tokens.push(merged);
    merges.push(pair);
  }
  const flags = { single_word: false, lstrip: false, rstrip: false, normalized: false };
  return {
    added_tokens: Array.from({ length: ADDED_TOKENS }, (_, i) => ({
      id: TOKENS + i,
      content: i === 0 ? '<s>' : `<added${i}>`,
      ...flags,
      special: i < SPECIAL_TOKENS,
    })),
    pre_tokenizer: { type: 'ByteLevel', add_prefix_space: false, use_regex: true },
    decoder: { type: 'ByteLevel' },
    model: { type: 'BPE', vocab: Object.fromEntries(tokens.map((token, id) => [token, id])), merges },
  };
}

export function writeBigTokenizer(folder: string): void {
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, 'tokenizer.json'), JSON.stringify(tokenizerJson()));
  writeFileSync(
    join(folder, 'chat_template.jinja'),
    '{% for m in messages %}<s>{{ m.role }}: {{ m.content }}\n{% endfor %}',
  );
}
