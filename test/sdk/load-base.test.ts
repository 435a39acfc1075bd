import { existsSync, realpathSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join, resolve } from 'node:path';
import { describe, expect, test } from 'vitest';
import { OpenLoraError } from '../../src/errors.js';
import type { LoadProgress } from '../../src/index.js';
import { fakeAddon } from './fake-native.js';
import { codeOf, CONTEXT, fakeFolder, fakeSdk, turns } from './fake-parts.js';

describe('loadBase', () => {
  test('says what it has loaded', async () => {
    const { loadBase, engines } = fakeSdk();
    await using base = await loadBase();
    expect(base.info).toEqual({
      family: 'llama',
      parameters: 1234,
      dtype: 'bf16',
      kvDtype: 'bf16',
      device: 'cpu',
      contextLength: CONTEXT,
      vocabSize: 256,
      sites: [{ name: 'model.layers.0.self_attn.q_proj', in: 8, out: 8 }],
      digest: 'd'.repeat(64),
      weightsFrom: 'files',
      warnings: [],
    });
    expect(engines[0]!.options).toMatchObject({
      dtype: 'bf16', kvDtype: 'bf16', adapterDtype: 'bf16', simd: 'auto', threads: 0, cacheDir: '', prefixCache: true, device: 'cpu',
      limits: { maxContext: 0, maxBatchTokens: 256, maxStepMs: 250, maxQueued: 4096, maxQueuedPerTenant: 2048, batchLoraBytes: 0 },
    }); // prettier-ignore
    const { poolBytes, pinnedAdapterBytes, hostAdapterBytes, adapterDiskBytes } = engines[0]!.options.limits;
    expect(poolBytes).toBe(16 * CONTEXT * 2 * 4 * 2 + 2 ** 28);
    expect(pinnedAdapterBytes).toBe(poolBytes / 2);
    for (const [bytes, most] of [
      [hostAdapterBytes, 2 ** 32],
      [adapterDiskBytes, 2 ** 34],
    ] as const) {
      expect(Number.isSafeInteger(bytes) && bytes > 0 && bytes <= most).toBe(true);
    }
  });

  test('packed adapters lie below cacheDir, or in a folder that goes with the base', async () => {
    const { loadBase, engines } = fakeSdk();
    const base = await loadBase();
    const { adapterDir } = engines[0]!.options;
    expect([dirname(adapterDir), basename(adapterDir)]).toEqual([
      realpathSync(tmpdir()),
      expect.stringMatching(/^openlora-packs-/),
    ]);
    expect(statSync(adapterDir).mode & 0o777).toBe(0o700);
    await base.dispose();
    expect(existsSync(adapterDir)).toBe(false);
    await using kept = await loadBase({ cacheDir: 'packed' });
    expect(kept.info.warnings).toEqual([]);
    expect(engines[1]!.options.adapterDir).toBe(resolve('packed', 'adapters'));
  });

  test('gives the engine what was asked for', async () => {
    const { loadBase, engines } = fakeSdk();
    const limits = {
      deviceMemory: '2MiB', maxContext: 64, maxBatchTokens: 8, maxStepMs: 0, maxQueued: 3, maxBatchLoraBytes: '1KiB',
      hostAdapterMemory: 0, pinnedAdapterMemory: '1MiB', adapterCacheDisk: '1 GB',
    }; // prettier-ignore
    await using base = await loadBase({
      dtype: 'f32',
      kvDtype: 'f16',
      simd: 'scalar',
      threads: 3,
      prefixCache: false,
      limits,
    });
    expect(base.info).toMatchObject({ dtype: 'f32', kvDtype: 'f16', contextLength: 64 });
    expect(engines[0]!.options).toMatchObject({
      dtype: 'f32', kvDtype: 'f16', adapterDtype: 'f32', simd: 'scalar', threads: 3, prefixCache: false,
      limits: {
        poolBytes: 2 ** 21, maxContext: 64, maxBatchTokens: 8, maxStepMs: 0, maxQueued: 3, maxQueuedPerTenant: 2, batchLoraBytes: 1024,
        hostAdapterBytes: 0, pinnedAdapterBytes: 2 ** 20, adapterDiskBytes: 1e9,
      },
    }); // prettier-ignore
  });

  test('holds KV in int8: a byte an element, and two for the scale of each head', async () => {
    const { loadBase, engines } = fakeSdk();
    await using base = await loadBase({ kvDtype: 'int8' });
    expect(base.info).toMatchObject({ dtype: 'bf16', kvDtype: 'int8' });
    expect(engines[0]!.options).toMatchObject({ dtype: 'bf16', kvDtype: 'int8', adapterDtype: 'bf16' });
    // K and V of one head of 4.
    expect(engines[0]!.options.limits.poolBytes).toBe(16 * CONTEXT * 2 * (4 + 2) + 2 ** 28);
  });

  test.each([undefined, 'auto', 'bf16'] as const)(
    'multiplies in bf16 where the weights are (dtype %s)',
    async (dtype) => {
      const { loadBase, engines } = fakeSdk();
      await using base = await loadBase({ compute: 'bf16', ...(dtype && { dtype }) });
      expect(base.info.dtype).toBe('bf16');
      expect(engines[0]!.options).toMatchObject({ dtype: 'bf16-dot', kvDtype: 'bf16', adapterDtype: 'bf16' });
    },
  );

  test.each(['f32', 'f16'] as const)('refuses compute bf16 for a checkpoint in %s', async (sourceDtype) => {
    const { loadBase, engines } = fakeSdk({}, {}, fakeFolder({ sourceDtype }));
    const message = `compute: got "bf16", wanted 'f32' with weights in ${sourceDtype}, or dtype 'bf16' beside it`;
    await expect(loadBase({ compute: 'bf16' })).rejects.toMatchObject({ code: 'ERR_INVALID_OPTION', message });
    expect(engines).toEqual([]);
    await using base = await loadBase({ compute: 'bf16', dtype: 'bf16' });
    expect(base.info.dtype).toBe('bf16');
  });

  test.each(['int8', 'int4'] as const)(
    'keeps KV and adapters of %s weights in the checkpoint’s 16 bits',
    async (dtype) => {
      const { loadBase, engines } = fakeSdk();
      await using base = await loadBase({ dtype });
      expect(base.info.dtype).toBe(dtype);
      expect(engines[0]!.options).toMatchObject({ dtype, kvDtype: 'bf16', adapterDtype: 'bf16' });
      await using _f32 = await loadBase({ dtype, kvDtype: 'f32' });
      expect(engines[1]!.options).toMatchObject({ dtype, kvDtype: 'f32', adapterDtype: 'bf16' });
    },
  );

  test.each([undefined, 'f32', 'int8'] as const)(
    'holds adapters in int8 beside weights in any dtype (%s)',
    async (dtype) => {
      const { loadBase, engines } = fakeSdk();
      await using _base = await loadBase({ adapterDtype: 'int8', ...(dtype && { dtype }) });
      const kvDtype = dtype === 'f32' ? 'f32' : 'bf16';
      expect(engines[0]!.options).toMatchObject({ dtype: dtype ?? 'bf16', kvDtype, adapterDtype: 'int8' });
      await using _auto = await loadBase({ adapterDtype: 'auto', ...(dtype && { dtype }) });
      expect(engines[1]!.options).toMatchObject({ adapterDtype: kvDtype });
    },
  );

  test.each([
    ['f32', 'bf16'],
    ['f16', 'f16'],
  ] as const)('beside int8 weights of a checkpoint in %s they are %s', async (sourceDtype, wanted) => {
    const { loadBase, engines } = fakeSdk({}, {}, fakeFolder({ sourceDtype }));
    await using _base = await loadBase({ dtype: 'int8' });
    expect(engines[0]!.options).toMatchObject({ dtype: 'int8', kvDtype: wanted, adapterDtype: wanted });
  });

  test('reports progress phase by phase, and ready once', async () => {
    const seen: LoadProgress[] = [];
    const { loadBase } = fakeSdk();
    await using _base = await loadBase({ onProgress: (progress) => seen.push(progress) });
    const phases = seen.map(({ phase }) => phase);
    expect(phases).toEqual(['tokenizer', 'tokenizer', 'weights', 'weights', 'pack', 'pack', 'ready']);
    expect(seen.at(-1)).toEqual({ phase: 'ready', bytesDone: 1000, bytesTotal: 1000 });
  });

  test('survives callbacks that throw or reject', async () => {
    const fail = () => {
      throw new Error('mine');
    };
    const reject = (): unknown => Promise.reject(new Error('mine'));
    const { loadBase } = fakeSdk();
    await using base = await loadBase({ onProgress: fail, logger: { debug: fail, info: fail, warn: fail } });
    expect((await base.generate({ prompt: 'ab', maxTokens: 2 }).result).text).toBe('ab');
    await using _other = await fakeSdk().loadBase({ onProgress: reject });
    await turns(3);
  });

  test('passes on what the folder warns of, in `info` and to the logger', async () => {
    const logged: unknown[] = [];
    const logger = { warn: (...given: unknown[]) => logged.push(given) };
    await using quiet = await fakeSdk().loadBase({ logger });
    expect([quiet.info.warnings, logged]).toEqual([[], []]);
    const warnings = [{ code: 'WARN_TEST', message: 'not applied' }];
    await using base = await fakeSdk({}, {}, fakeFolder({ warnings })).loadBase({ logger });
    expect(base.info.warnings).toEqual(warnings);
    expect(logged).toEqual([['not applied', { code: 'WARN_TEST' }]]);
  });

  test('gives the engine an absolute cacheDir, and says where the weights came from', async () => {
    const { loadBase, engines } = fakeSdk({ weightsFrom: 'cache' });
    await using base = await loadBase({ cacheDir: 'packed' });
    expect(engines[0]!.options.cacheDir).toBe(join(process.cwd(), 'packed'));
    expect(base.info).toMatchObject({ weightsFrom: 'cache', warnings: [] });
  });

  test('warns of a cacheDir that was of no use, after what the folder warns of', async () => {
    const logged: unknown[] = [];
    const logger = { warn: (...given: unknown[]) => logged.push(given) };
    const warnings = [{ code: 'WARN_TEST', message: 'not applied' }];
    const { loadBase } = fakeSdk({ cacheWarning: '/full: No space' }, {}, fakeFolder({ warnings }));
    await using base = await loadBase({ cacheDir: '/full', logger });
    const expected = [
      ...warnings,
      { code: 'WARN_BASE_CACHE', message: "the cache of packed weights can't be used: /full: No space" },
    ];
    expect(base.info.warnings).toEqual(expected);
    expect(logged).toEqual(expected.map(({ code, message }) => [message, { code }]));
  });
});

describe('loadBase that fails', () => {
  test.each(['tokenizer', 'weights', 'pack'] as const)(
    'by an abort while %s: everything is freed first',
    async (phase) => {
      const { loadBase, engines, tokenizers } = fakeSdk();
      const controller = new AbortController();
      const later: string[] = [];
      const loading = loadBase({
        signal: controller.signal,
        onProgress: (progress) => {
          if (controller.signal.aborted) later.push(progress.phase);
          if (progress.phase === phase) controller.abort('mine');
        },
      });
      await expect(loading).rejects.toMatchObject({ code: 'ERR_ABORTED', cause: 'mine' });
      expect(tokenizers.every(({ isDisposed }) => isDisposed)).toBe(true);
      expect(engines.every(({ isClosed }) => isClosed)).toBe(true);
      expect(engines).toHaveLength(phase === 'tokenizer' ? 0 : 1);
      expect(later).toEqual([]);
    },
  );

  test('by a signal that is aborted already, or while the folder is read', async () => {
    const { loadBase, tokenizers } = fakeSdk();
    expect(await codeOf(loadBase({ signal: AbortSignal.abort() }))).toBe('ERR_ABORTED');
    const controller = new AbortController();
    const loading = loadBase({ signal: controller.signal });
    controller.abort();
    expect(await codeOf(loading)).toBe('ERR_ABORTED');
    expect(tokenizers).toEqual([]);
  });

  test('is not disturbed by an abort after it has ended', async () => {
    const controller = new AbortController();
    await using base = await fakeSdk().loadBase({ signal: controller.signal });
    controller.abort();
    expect(await base.generate({ prompt: 'ab', maxTokens: 1 }).text()).toBe('a');
  });

  test('with what the engine says, and lets the tokenizer go', async () => {
    const { loadBase, tokenizers, engines } = fakeSdk({ openFailure: { code: 'ERR_OUT_OF_MEMORY', message: 'pool' } });
    await expect(loadBase()).rejects.toMatchObject({ code: 'ERR_OUT_OF_MEMORY', message: 'pool', retryable: true });
    expect(tokenizers[0]!.isDisposed).toBe(true);
    expect(engines[0]!.calls).toEqual(['close']);
  });

  test('an engine that ends by itself fails what it had and what comes later, and can be disposed', async () => {
    const { loadBase, engines } = fakeSdk();
    const base = await loadBase();
    const running = base.generate({ tokens: [97] });
    engines[0]!.crash('ERR_OUT_OF_MEMORY', 'the host is full');
    expect(await codeOf(running.result)).toBe('ERR_OUT_OF_MEMORY');
    expect(await codeOf(base.generate({ tokens: [97] }).result)).toBe('ERR_OUT_OF_MEMORY');
    expect(await codeOf(base.registerAdapter('a', 'folder'))).toBe('ERR_OUT_OF_MEMORY');
    expect(() => base.stats()).toThrow('the host is full');
    await base.dispose();
    expect(await codeOf(base.generate({ tokens: [97] }).result)).toBe('ERR_CLOSED');
  });

  test('where a GPU is asked for and the addon is for CPUs, with what was tried', async () => {
    const rejected = [{ path: 'variants/cuda13', reason: 'no NVIDIA driver was found' }];
    const native = { binding: fakeAddon({}), path: 'cpu.node', variant: 'cpu' as const, rejected };
    await expect(fakeSdk({}, { loadNative: () => native }).loadBase({ device: 'cuda:1' })).rejects.toMatchObject({
      code: 'ERR_CUDA_DRIVER',
      message:
        "device: 'cuda:1' can't be used: cpu.node computes on CPUs, and those for GPUs can't run here\n  variants/cuda13: no NVIDIA driver was found",
      details: { device: 'cuda:1' },
    });
  });

  test('with the code of whatever part failed', async () => {
    const missing = Object.assign(new Error('no addon'), { code: 'ERR_NATIVE_NOT_FOUND' });
    const noAddon = fakeSdk({}, { loadNative: () => { throw missing; } }); // prettier-ignore
    const noFolder = fakeSdk({}, { openFolderReader: () => Promise.reject(new OpenLoraError('ERR_BASE', 'x')) });
    const noReason = fakeSdk({}, { openTokenizer: () => Promise.reject(new TypeError('oops')) });
    expect(await codeOf(noAddon.loadBase())).toBe('ERR_NATIVE_NOT_FOUND');
    expect(await codeOf(noFolder.loadBase())).toBe('ERR_BASE');
    await expect(noReason.loadBase()).rejects.toMatchObject({ code: 'ERR_INTERNAL', message: 'oops' });
  });

  test('for a context longer than the checkpoint is made for', async () => {
    await expect(fakeSdk().loadBase({ limits: { maxContext: 513 } })).rejects.toMatchObject({
      code: 'ERR_INVALID_OPTION',
      message: 'limits.maxContext: got 513, wanted at most 512, what the checkpoint is made for',
    });
  });
});
