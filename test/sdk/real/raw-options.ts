// What the addon is opened with where tests go past the SDK.

import { baseTensorTable } from '../../../src/formats/tables.js';
import type { BaseFolder } from '../../../src/formats/types.js';
import type { OpenOptions } from '../../../src/native/binding.js';

/** A tiny checkpoint in a small pool; every token is an 'a'. */
export function rawOpenOptions({ spec, files, tensors }: BaseFolder): OpenOptions {
  return {
    model: spec,
    files,
    tensors: baseTensorTable(tensors),
    cacheDir: '',
    adapterDir: '',
    tokenBytes: new Uint8Array(spec.vocab).fill(97),
    tokenOffsets: Uint32Array.from({ length: spec.vocab + 1 }, (_, i) => i),
    dtype: 'f32',
    kvDtype: 'f32',
    adapterDtype: 'f32',
    device: 'cpu',
    cudaImages: '',
    simd: 'auto',
    threads: 1,
    prefixCache: true,
    limits: {
      poolBytes: 4 << 20,
      maxContext: 64,
      maxBatchTokens: 16,
      maxStepMs: 0,
      maxQueued: 64,
      maxQueuedPerTenant: 64,
      batchLoraBytes: 0,
      adapterDiskBytes: 2 ** 24,
      hostAdapterBytes: 2 ** 22,
      pinnedAdapterBytes: 2 ** 20,
    },
  };
}
