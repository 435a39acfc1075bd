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

  // Errors of int8 are about max/127/√12 of a row of 8, those of bf16 about v · 0.7 · 2^-8/√12, v about 0.55 of max: five
  // times as large, and twice that by chance. A scale that is off by any factor is off by more than that.
  test('is further from KV in f32 than bf16 is, and not by more than its steps are', async () => {
    const prompt =
      'hello, this is a prompt of some more tokens than one frame holds, so that there are enough to compare';
    const scores = async (of: Base) => {
      const { promptLogprobs } = await of.generate({ prompt, maxTokens: 1, promptLogprobs: 0 }).result;
      return promptLogprobs!.flatMap((entry) => (entry ? [entry.logprob] : []));
    };
    const scoresIn = async (kvDtype: 'f32' | 'bf16') => {
      await using other = await loadBase({ path: files.base, kvDtype, threads: 2, limits: { maxContext: 512 } });
      return await scores(other);
    };
    const f32 = await scoresIn('f32');
    const errorOf = (of: number[]) => Math.sqrt(of.reduce((sum, x, i) => sum + (x - f32[i]!) ** 2, 0) / of.length);
    const [bf16, int8] = [errorOf(await scoresIn('bf16')), errorOf(await scores(base))];
    expect(f32.length).toBeGreaterThan(90);
    expect(bf16).toBeGreaterThan(0);
    expect(int8).toBeGreaterThan(bf16);
    expect(int8).toBeLessThan(10 * bf16);
  });

  test('stats() counts the scales beside the frames', async () => {
    const generation = base.generate({ prompt: 'hello', maxTokens: 480, ignoreEos: true });
    let seen = 0; // the engine waits for its reader with KV of 256 tokens
    for await (const _ of generation) {
      const { kv } = base.stats().bytes;
      expect(kv % FRAME).toBe(0);
      seen = Math.max(seen, kv);
    }
    expect(seen).toBeGreaterThanOrEqual(SIZES.layers * FRAME);
    expect(base.stats().bytes.kv).toBe(0);
  });
});
