// `adapterDtype: 'int8'` on the real engine: what is reported, what it holds, and that answers are the same bits alone, in a
// batch and after an eviction.

import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { loadBase, type Base, type LoadBaseOptions } from '../../../src/index.js';
import { noAddon } from './addon.js';
import { writeAdapter, writeTinyCheckpoint, type TinyCheckpoint } from './tiny-checkpoint.js';

const ASK = { prompt: 'hello', maxTokens: 24, ignoreEos: true, logprobs: 3, promptLogprobs: 0 };

describe.skipIf(noAddon)('adapters in int8', () => {
  let files: TinyCheckpoint;
  let base: Base;

  const open = async (options: Partial<LoadBaseOptions> = {}) => {
    const opened = await loadBase({ path: files.base, threads: 2, adapterDtype: 'int8', ...options });
    for (const [i, folder] of files.adapters.entries()) await opened.registerAdapter(`a${i}`, folder);
    return opened;
  };
  const answerOf = async (of: Base, adapter?: string) => {
    const { tokens, text, logprobs, promptLogprobs } = await of.generate({ ...ASK, ...(adapter && { adapter }) })
      .result;
    return { tokens, text, logprobs, promptLogprobs };
  };

  beforeAll(async () => {
    files = writeTinyCheckpoint();
    base = await open();
  });
  afterAll(async () => {
    await base.dispose();
    rmSync(files.root, { recursive: true });
  });

  test('are said to be that, and hold less than f32', async () => {
    await using other = await open({ adapterDtype: 'auto' });
    for (const id of ['a0', 'a1', 'a2', 'a3']) {
      const [int8, f32] = [base.adapters.get(id)!, other.adapters.get(id)!];
      expect([int8.dtype, f32.dtype]).toEqual(['int8', 'f32']);
      expect(int8.generation).toBe(f32.generation);
      // Tiles of 32 columns are rounded up to 256 bytes; how much large ones take, tile_layout_test.cc says.
      expect(int8.bytes, id).toBeLessThan(f32.bytes);
    }
    expect(base.info.dtype).toBe('f32');
  });

  test('answer the same bits alone, in a batch, and beside rows of the base alone', async () => {
    const ids = [undefined, 'a0', 'a1', 'a2', 'a3'];
    const alone = [];
    for (const id of ids) alone.push(await answerOf(base, id));
    const together = await Promise.all([...ids, ...ids].map((id) => answerOf(base, id)));
    expect(together).toEqual([...alone, ...alone]);
    expect(new Set(alone.map(({ text }) => text)).size).toBe(ids.length);
    await using plain = await loadBase({ path: files.base, threads: 2 });
    expect(await answerOf(plain)).toEqual(alone[0]);
  });

  test('answer almost what f32 adapters do, and not quite', async () => {
    await using other = await open({ adapterDtype: 'auto' });
    for (const id of ['a0', 'a1', 'a2', 'a3']) {
      const [int8, f32] = [await answerOf(base, id), await answerOf(other, id)];
      const differences = int8.promptLogprobs!.map((of, i) =>
        Math.abs((of?.logprob ?? 0) - (f32.promptLogprobs![i]?.logprob ?? 0)),
      );
      expect(Math.max(...differences), id).toBeGreaterThan(0);
      expect(Math.max(...differences), id).toBeLessThan(0.3);
    }
  });

  test('are the same after an eviction', async () => {
    await using small = await loadBase({
      path: files.base,
      adapterDtype: 'int8',
      limits: { deviceMemory: '1MiB', maxContext: 128 },
    });
    const ids = Array.from({ length: 8 }, (_, i) => `large-${i}`);
    for (const [i, id] of ids.entries()) {
      const folder = writeAdapter(join(files.root, id), 256, 50 + i, ['q_proj', 'lm_head', 'down_proj']);
      await small.registerAdapter(id, folder);
    }
    const first = [];
    for (const id of ids) first.push(await answerOf(small, id));
    for (const [i, id] of ids.entries()) expect(await answerOf(small, id)).toEqual(first[i]);
    expect(small.adapters.stats().evictions).toBeGreaterThanOrEqual(ids.length);
  });
});
