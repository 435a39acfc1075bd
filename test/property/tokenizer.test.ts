import { readdirSync, readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { buildTokenTable, decodeTokens } from '../../src/formats/token-bytes.js';
import { TextEncoding } from '../../src/formats/tokenizer-encode.js';
import { readTokenizerJson, type TokenizerJson } from '../../src/formats/tokenizer-json.js';
import { openTokenizer } from '../../src/formats/tokenizer.js';
import { newFolder, writeFiles } from '../formats/fixtures.js';
import { byteChanges, changed, type Change, changes, coded, holds, withBytes } from './property.js';

const REFUSED = /^ERR_TOKENIZER_UNSUPPORTED$/;
const folder = new URL('../tokenizer/golden/', import.meta.url);
const sources = readdirSync(folder, { withFileTypes: true })
  .filter((entry) => entry.isDirectory())
  .map(({ name }) => readFileSync(new URL(`${name}/tokenizer.json`, folder), 'utf8'));

/** Changes of the parts that are not tables, where chance would seldom hit. */
function withParts(text: string, list: readonly Change[]): string {
  const root = JSON.parse(text) as Record<string, unknown>;
  const { model, ...parts } = root;
  const { vocab, merges, ...options } = model as Record<string, unknown>;
  const odd = JSON.parse(changed({ ...parts, model: options }, list)) as unknown;
  if (typeof odd !== 'object' || odd === null) return JSON.stringify(odd);
  const { model: oddModel } = odd as { model?: unknown };
  const whole = typeof oddModel === 'object' && oddModel !== null ? { merges, vocab, ...oddModel } : oddModel;
  return JSON.stringify({ ...odd, model: whole });
}

async function readAll(text: string): Promise<void> {
  const source: TokenizerJson | undefined = await coded(REFUSED, () => readTokenizerJson(text));
  if (!source) return;
  const addedTokens = source.addedTokens.map(({ id, content, special }) => ({ id, text: content, special }));
  const table = await coded(REFUSED, () =>
    buildTokenTable({ vocab: source.bytePairs.vocab, addedTokens, decoder: source.decoder }),
  );
  if (!table) return;
  const { bytes, offsets } = table;
  expect(offsets.every((offset, i) => i === 0 || offset >= offsets[i - 1]!)).toBe(true);
  expect(offsets.at(-1)).toBe(bytes.length);
  const ids = [0, 5, 17, offsets.length - 2].filter((id) => id >= 0 && id < offsets.length - 1);
  expect(typeof decodeTokens(table, ids, false)).toBe('string');
}

describe('tokenizer.json is read or refused by a code', () => {
  test('whatever value in it changes', () =>
    holds(fc.tuple(fc.constantFrom(...sources), changes), ([text, list]) => readAll(changed(JSON.parse(text), list))));

  test('whatever part of it changes', () =>
    holds(fc.tuple(fc.constantFrom(...sources), changes), ([text, list]) => readAll(withParts(text, list)), 400));

  test('whatever bytes in it change', () =>
    holds(fc.tuple(fc.constantFrom(...sources), byteChanges), ([text, bytes]) =>
      readAll(withBytes(Buffer.from(text), bytes).toString()),
    ));

  test('also by the worker that builds and encodes', async () => {
    const path = await newFolder();
    await holds(
      fc.tuple(fc.constantFrom(...sources), changes, fc.string({ unit: 'binary', maxLength: 40 })),
      async ([text, list, prompt]) => {
        await writeFiles(path, { 'tokenizer.json': withParts(text, list) });
        const tokenizer = await coded(/^ERR_TOKENIZER_(UNSUPPORTED|WORKER)$/, () => openTokenizer({ folder: path }));
        if (!tokenizer) return;
        const ids = await coded(/^ERR_(TOKENIZER_WORKER|TOKEN_RANGE)$/, () => tokenizer.encode(prompt));
        if (ids) expect(typeof tokenizer.decode(ids)).toBe('string');
        await tokenizer.dispose();
      },
      12,
    );
  });
});

describe('a text', () => {
  test('that byte-level BPE encodes is the text that its tokens decode to', () => {
    const names = ['gpt2', 'llama3', 'qwen'];
    const pairs = names.map((name) => {
      const source = readTokenizerJson(readFileSync(new URL(`${name}/tokenizer.json`, folder), 'utf8'));
      const addedTokens = source.addedTokens.map(({ id, content, special }) => ({ id, text: content, special }));
      const table = buildTokenTable({ vocab: source.bytePairs.vocab, addedTokens, decoder: source.decoder });
      // A normalizer changes the text, rightly: it is left out here.
      return { encoding: new TextEncoding({ ...source, library: { ...source.library, normalizer: null } }), table };
    });
    return holds(
      fc.tuple(fc.constantFrom(...pairs), fc.string({ unit: 'grapheme', maxLength: 60 })),
      ([{ encoding, table }, text]) => {
        const ids = encoding.encode(text, false, 'none');
        expect(decodeTokens(table, ids, false)).toBe(text);
      },
    );
  });
});
