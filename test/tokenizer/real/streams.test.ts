// The engine's own detokenizer on the bytes of real tokens, in the order in which real texts have them.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { openFolderReader } from '../../../src/formats/index.js';
import { openTokenizer, type Tokenizer } from '../../../src/formats/tokenizer.js';
import type { Base } from '../../../src/index.js';
import { loadNative } from '../../../src/native/load.js';
import { createLoadBase } from '../../../src/sdk/load-base.js';
import { noAddon } from '../../sdk/real/addon.js';
import { writeChain } from './chain.js';
import { corpusTexts, minstd, realFolder } from './real.js';

const TOKENS_MAX = 150;
const RANDOM_SEQUENCES = 150;

afterAll(async () => rmSync(await realFolder(), { recursive: true }));

/** One after the other in the chain, each behind a token of no text, its prompt. */
interface Chain {
  sequences: Uint32Array[];
  /** Of each sequence, the id of its prompt. */
  starts: number[];
  tokenBytes: Uint8Array;
  tokenOffsets: Uint32Array;
}

function chainOf({ tokenBytes, tokenOffsets }: Tokenizer, sequences: Uint32Array[]): Chain {
  const starts: number[] = [];
  const offsets = [0];
  const pieces: Uint8Array[] = [];
  let end = 0;
  for (const ids of sequences) {
    starts.push(offsets.length - 1);
    offsets.push(end);
    for (const id of ids) {
      const piece = tokenBytes.subarray(tokenOffsets[id], tokenOffsets[id + 1]);
      pieces.push(piece);
      offsets.push((end += piece.length));
    }
  }
  return { sequences, starts, tokenBytes: Buffer.concat(pieces), tokenOffsets: Uint32Array.from(offsets) };
}

/** A base that says the chain. */
async function baseOf(folder: string, tokenizer: Tokenizer, chain: Chain): Promise<Base> {
  const vocab = chain.tokenOffsets.length - 1;
  writeChain(folder, vocab);
  const { tokenBytes, tokenOffsets } = chain;
  const openChain = () =>
    Promise.resolve({ ...tokenizer, tokenBytes, tokenOffsets, vocabulary: vocab, dispose: () => Promise.resolve() });
  const load = createLoadBase({ loadNative, openFolderReader, openTokenizer: openChain });
  return load({ path: folder, dtype: 'f32', limits: { deviceMemory: '8MiB', maxContext: 512 } });
}

/** The text as it came, piece by piece; the result's is the same. */
async function streamed(base: Base, { sequences, starts }: Chain, i: number, stop?: string): Promise<string> {
  const generation = base.generate({
    tokens: [starts[i]!],
    maxTokens: sequences[i]!.length,
    temperature: 0,
    ...(stop === undefined ? {} : { stop: [stop] }),
  });
  let text = '';
  for await (const piece of generation) {
    // Characters are never cut in two.
    expect(piece.text).not.toMatch(/^[\udc00-\udfff]|[\ud800-\udbff]$/);
    text += piece.text;
  }
  const result = await generation.result;
  expect(result.text).toBe(text);
  if (stop === undefined) {
    const first = starts[i]! + 1;
    expect(Array.from(result.tokens)).toEqual(Array.from(sequences[i]!, (_, at) => first + at));
  }
  return text;
}

/** What differs; all are asked for at once. */
async function differing(
  count: number,
  check: (i: number) => Promise<[got: string, isRight: boolean]>,
): Promise<string[]> {
  const checked = await Promise.all(Array.from({ length: count }, (_, i) => check(i)));
  return checked.flatMap(([got, isRight], i) => (isRight ? [] : [`${i}: ${JSON.stringify(got)}`]));
}

describe.skipIf(noAddon).each(['llama31', 'gemma3', 'qwen3', 'llama2', 'gptoss', 'nemo'])(
  'the engine streams %s',
  (name) => {
    test('as the text that `tokenizers` decodes, and up to a stop', { timeout: 120_000 }, async () => {
      const tokenizer = await openTokenizer({ folder: `${await realFolder()}/${name}` });
      const folder = mkdtempSync(join(tmpdir(), 'openlora-chain-'));
      try {
        const special = tokenizer.addedTokens.filter((token) => token.special).map((token) => token.content);
        const encoded = await Promise.all(corpusTexts(special).map((text) => tokenizer.encode(text)));
        const ofTexts = encoded.filter(({ length }) => length > 0 && length <= TOKENS_MAX);
        expect(ofTexts.length).toBeGreaterThan(600);
        const below = minstd();
        const random = Array.from({ length: RANDOM_SEQUENCES }, () =>
          Uint32Array.from({ length: 1 + below(14) }, () => below(tokenizer.vocabulary)),
        );
        const chain = chainOf(tokenizer, [...ofTexts, ...random]);
        const base = await baseOf(folder, tokenizer, chain);
        try {
          const whole = chain.sequences.map((ids) => tokenizer.decode(ids));
          const texts: string[] = [];
          const isText = (got: string, i: number) =>
            // A stream drops no space from the beginning; what is no UTF-8 may have fewer U+FFFD.
            got === whole[i] ||
            got === ` ${whole[i]}` ||
            (i >= ofTexts.length && got === utf8Of(tokenizer, chain.sequences[i]!));
          expect(
            await differing(chain.sequences.length, async (i) => {
              texts[i] = await streamed(base, chain, i);
              return [texts[i], isText(texts[i], i)];
            }),
          ).toEqual([]);
          const stops = texts.map((text) =>
            Array.from(text)
              .slice(text.length >> 2, (text.length >> 2) + 3)
              .join(''),
          );
          expect(stops.filter(Boolean).length).toBeGreaterThan(500);
          expect(
            await differing(chain.sequences.length, async (i) => {
              // An unfinished character becomes U+FFFD when the answer has ended: too late for a stop.
              if (!stops[i] || (texts[i]!.endsWith('\ufffd') && stops[i].endsWith('\ufffd'))) return ['', true];
              const got = await streamed(base, chain, i, stops[i]);
              return [got, got === texts[i]!.slice(0, texts[i]!.indexOf(stops[i]))];
            }),
          ).toEqual([]);
        } finally {
          await base.dispose();
        }
      } finally {
        rmSync(folder, { recursive: true });
        await tokenizer.dispose();
      }
    });
  },
);

function utf8Of({ tokenBytes, tokenOffsets }: Tokenizer, ids: Uint32Array): string {
  const pieces = Array.from(ids, (id) => tokenBytes.subarray(tokenOffsets[id], tokenOffsets[id + 1]));
  return new TextDecoder('utf-8', { ignoreBOM: true }).decode(Buffer.concat(pieces));
}
