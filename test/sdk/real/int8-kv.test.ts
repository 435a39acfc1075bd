// `kvDtype: 'int8'` on the real addon. Skipped where no addon was built (npm run build:native).

import { rmSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { loadBase, type Base } from '../../../src/index.js';
import { noAddon } from './addon.js';
import { SIZES, writeTinyCheckpoint, type TinyCheckpoint } from './tiny-checkpoint.js';

/** A frame of 4 KiB, and beside it the scales of K and V of 16 tokens. */
const FRAME = 4096 + 2 * SIZES.kvHeads * 16 * 2;
const FRAMES = 300;

describe.skipIf(noAddon)('KV in int8', () => {
  let files: TinyCheckpoint;
  let base: Base;
  beforeAll(async () => {
    files = writeTinyCheckpoint();
    const limits = { maxContext: 512, deviceMemory: FRAMES * FRAME };
    base = await loadBase({ path: files.base, kvDtype: 'int8', threads: 2, limits });
    for (const [i, folder] of files.adapters.entries()) await base.registerAdapter(`a${i}`, folder);
  });
  afterAll(async () => {
    await base.dispose();
    rmSync(files.root, { recursive: true });
  });

  const ask = (prompt: string, adapter?: string) =>
    base.generate({ prompt, maxTokens: 24, ignoreEos: true, logprobs: 0, ...(adapter && { adapter }) }).result;

  test('answers alone and in a batch with the same bits', async () => {
    expect(base.info).toMatchObject({ dtype: 'f32', kvDtype: 'int8' });
    const prompts = ['hello', 'a longer prompt, of more than one frame of tokens', 'x', 'hello'];
    const alone = [];
    for (const [i, prompt] of prompts.entries()) alone.push(await ask(prompt, i === 2 ? undefined : `a${i}`));
    const mixed = await Promise.all(prompts.map((prompt, i) => ask(prompt, i === 2 ? undefined : `a${i}`)));
    for (const [i, { tokens, logprobs }] of mixed.entries())
      expect({ tokens, logprobs }).toEqual({ tokens: alone[i]!.tokens, logprobs: alone[i]!.logprobs });
  });

  test('is near KV in f32, and not the same', async () => {
    await using exact = await loadBase({ path: files.base, kvDtype: 'f32', threads: 2, limits: { maxContext: 512 } });
    const request = { prompt: 'hello, this is a prompt', maxTokens: 1, promptLogprobs: 0 };
    const [wanted, got] = await Promise.all([exact, base].map((of) => of.generate(request).result));
    const differences = got!.promptLogprobs!.flatMap((entry, i) => {
      const other = wanted!.promptLogprobs![i];
      return entry && other ? [Math.abs(entry.logprob - other.logprob)] : [];
    });
    expect(differences.length).toBeGreaterThan(10);
    expect(Math.max(...differences)).toBeGreaterThan(0);
    expect(Math.max(...differences)).toBeLessThan(0.05); // each element of K and V is off by 1/254 of its row's largest
  });

  test('stats() counts the scales beside the frames', async () => {
    const generation = base.generate({ prompt: 'hello', maxTokens: 200, ignoreEos: true });
    let seen = 0;
    for await (const _ of generation) {
      const { kv } = base.stats().bytes;
      expect(kv % FRAME).toBe(0);
      seen = Math.max(seen, kv);
    }
    expect(seen).toBeGreaterThanOrEqual(SIZES.layers * FRAME);
    expect(base.stats().bytes.kv).toBe(0);
  });
});
