// The addon's variants for GPUs, built from source with both toolkits: what they do where there is no driver.

import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { root } from '../../scripts/files.mjs';
import { openFolderReader } from '../../src/formats/index.js';
import { openTokenizer } from '../../src/formats/tokenizer.js';
import type { NativeAddon } from '../../src/native/binding.js';
import type { NativeVariant } from '../../src/native/load.js';
import { createLoadBase } from '../../src/sdk/load-base.js';

const BUILD = 'build/cuda';
const BUILD_MS = 1_800_000;
const base = join(root, 'demo', 'base');

const run = (command: string, ...args: string[]): string =>
  execFileSync(command, args, {
    cwd: root,
    encoding: 'utf8',
    maxBuffer: 1 << 26,
    stdio: ['ignore', 'pipe', 'inherit'],
  });

beforeAll(() => {
  const toolkits = [...run(process.execPath, 'scripts/cuda/fetch.mjs').matchAll(/^CUDA \d+: (.*)\/lib[^/]*\/[^/]*$/gm)];
  expect(toolkits).toHaveLength(2);
  const folders = toolkits.map(([, folder]) => folder!).join(';');
  // Images of one architecture: the step cuda-images compiles them for all.
  run('cmake', '-S', '.', '-B', BUILD, '-DOPENLORA_TESTS=OFF', '-DOPENLORA_BENCH=OFF', '-DOPENLORA_WERROR=ON',
    '-DOPENLORA_CUDA_ARCHITECTURES=90', `-DOPENLORA_CUDA_TOOLKIT=${folders}`); // prettier-ignore
  run('cmake', '--build', BUILD, '--parallel', '2', '--target', 'openlora_addon_cuda12', 'openlora_addon_cuda13');
}, BUILD_MS);

describe.each<NativeVariant>(['cuda12', 'cuda13'])('%s', (variant) => {
  const path = join(root, BUILD, 'variants', variant, 'openlora.node');
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

  it('computes on the CPU', async () => {
    await using opened = await loadBase({ path: base });
    expect(opened.info.device).toBe('cpu');
    const { tokens } = await opened.generate({ tokens: [1, 2, 3], maxTokens: 4, ignoreEos: true }).result;
    expect(tokens).toHaveLength(4);
  });
});
