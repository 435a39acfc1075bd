// The addon's variants for GPUs, as the step cuda-variants of `npm run check` builds them: what they do where there is no driver.

import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { root } from '../../scripts/files.mjs';
import { openFolderReader } from '../../src/formats/index.js';
import { openTokenizer } from '../../src/formats/tokenizer.js';
import type { BenchEvent, NativeAddon } from '../../src/native/binding.js';
import type { NativeVariant } from '../../src/native/load.js';
import { createLoadBase } from '../../src/sdk/load-base.js';

const base = join(root, 'demo', 'base');

describe.each<NativeVariant>(['cuda12', 'cuda13'])('%s', (variant) => {
  const path = join(root, 'build', 'release', 'variants', variant, 'openlora.node');
  const load = (): NativeAddon => {
    const module = { exports: {} };
    process.dlopen(module, path);
    return module.exports as NativeAddon;
  };
  const loadBase = createLoadBase({
    loadNative: () => ({ binding: load(), variant, path, rejected: [] }),
    openFolderReader,
    openTokenizer,
  });

  it('loads, and says whether a GPU can be used', ({ skip }) => {
    const { isUsable, reason } = load().probe();
    skip(isUsable, 'there is a driver');
    expect(reason).toMatch(/^(no NVIDIA driver was found|the NVIDIA driver has CUDA \d+\.\d+, and this build needs)/);
  });

  it("refuses device 'cuda:0' where it can't", async ({ skip }) => {
    skip(load().probe().isUsable, 'there is a driver');
    await expect(loadBase({ path: base, device: 'cuda:0' })).rejects.toMatchObject({ code: 'ERR_CUDA_DRIVER' });
    await expect(loadBase({ path: base, device: 'cuda:0', dtype: 'int8' })).rejects.toMatchObject({
      code: 'ERR_CUDA_UNSUPPORTED',
      message: 'weights in int8: on a GPU they are in bf16 or f16',
    });
  });

  it.each(['limits', 'ops'] as const)("measures no GPU's %s where there is none", async (kind) => {
    if (load().probe().isUsable) return; // there is a driver
    const options = { kind, device: 'cuda:0', cudaImages: '', threads: 0, simd: 'auto', rounds: 1 } as const;
    const ended = await new Promise<BenchEvent>((resolve) => {
      load().bench({ ...options, isQuick: true, filter: '' }, resolve);
    });
    expect(ended).toMatchObject({ kind: 'ended', code: 'ERR_CUDA_DRIVER' });
  });

  it('computes on the CPU', async () => {
    await using opened = await loadBase({ path: base });
    expect(opened.info.device).toBe('cpu');
    const { tokens } = await opened.generate({ tokens: [1, 2, 3], maxTokens: 4, ignoreEos: true }).result;
    expect(tokens).toHaveLength(4);
  });
});
