// Packed weights that the next start maps. Skipped where no addon was built (npm run build:native).

import {
  mkdirSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { loadBase, type LoadBaseOptions, type LoadProgress } from '../../../src/index.js';
import { codeOf } from '../fake-parts.js';
import { noAddon } from './addon.js';
import { writeTinyCheckpoint, type TinyCheckpoint } from './tiny-checkpoint.js';

const DTYPES = ['f32', 'f16', 'bf16', 'int8', 'int4'] as const;

describe.skipIf(noAddon)('cacheDir', () => {
  let files: TinyCheckpoint;
  let cacheDir: string;

  beforeEach(() => {
    files = writeTinyCheckpoint();
    cacheDir = join(files.root, 'packed', 'weights');
  });
  afterEach(() => rmSync(files.root, { recursive: true }));

  /** Loads, asks with and without an adapter, and disposes. */
  async function start(options: Partial<LoadBaseOptions> = {}) {
    const progress: LoadProgress[] = [];
    const limits = { maxContext: 256 };
    const onProgress = (event: LoadProgress) => progress.push(event);
    await using base = await loadBase({ path: files.base, threads: 2, limits, cacheDir, onProgress, ...options });
    await base.registerAdapter('a', files.adapters[2]!);
    const request = { prompt: 'hello', maxTokens: 16, ignoreEos: true, logprobs: 3, promptLogprobs: 2 };
    const answers = await Promise.all(
      [{}, { adapter: 'a' }].map(async (named) => {
        const { tokens, logprobs, promptLogprobs } = await base.generate({ ...request, ...named }).result;
        return { tokens, logprobs, promptLogprobs };
      }),
    );
    const { weightsFrom, warnings, digest } = base.info;
    expect(progress.every(({ bytesDone, bytesTotal }) => bytesDone <= bytesTotal)).toBe(true);
    const phases = [...new Set(progress.map(({ phase }) => phase))];
    return { weightsFrom, warnings, digest, answers, phases, weightBytes: base.stats().bytes.base };
  }
  /** Of the weights; packed adapters have a folder of their own. */
  const kept = () =>
    readdirSync(cacheDir)
      .sort()
      .filter((name) => name !== 'adapters');

  test.each(DTYPES)('the second start in %s maps what the first packed, and answers the same bits', async (dtype) => {
    const [none, first] = [await start({ dtype, cacheDir: undefined as never }), await start({ dtype })];
    const before = statSync(join(cacheDir, kept()[0]!));
    const second = await start({ dtype, threads: 1 });
    expect([none, first, second].map(({ weightsFrom }) => weightsFrom)).toEqual(['files', 'files', 'cache']);
    expect(none.phases).toEqual(['tokenizer', 'weights', 'pack', 'ready']);
    expect(first.phases).toEqual(['tokenizer', 'weights', 'pack', 'cache', 'ready']);
    expect(second.phases).toEqual(['tokenizer', 'weights', 'ready']);
    for (const { answers, warnings, digest, weightBytes } of [first, second]) {
      expect(answers).toEqual(none.answers);
      expect({ warnings, digest, weightBytes }).toEqual({
        warnings: [],
        digest: none.digest,
        weightBytes: none.weightBytes,
      });
    }
    expect(kept()).toEqual([expect.stringMatching(/^[0-9a-f]{32}\.weights$/)]);
    const after = statSync(join(cacheDir, kept()[0]!));
    expect([after.ino, after.mtimeMs]).toEqual([before.ino, before.mtimeMs]);
    expect(after.size).toBe(4096 + none.weightBytes);
    expect(after.mode & 0o777).toBe(0o600);
    expect(statSync(cacheDir).mode & 0o777).toBe(0o700);
  });

  test('each dtype has a file of its own', async () => {
    for (const dtype of DTYPES) await start({ dtype });
    for (const dtype of DTYPES) expect((await start({ dtype })).weightsFrom).toBe('cache');
    expect(kept()).toHaveLength(DTYPES.length);
  });

  test('bf16 has one file, whatever computes with it', async () => {
    const starts = [await start({ dtype: 'bf16' }), await start({ dtype: 'bf16', compute: 'bf16' })];
    expect(starts.map(({ weightsFrom }) => weightsFrom)).toEqual(['files', 'cache']);
    expect(kept().length).toBe(1);
    const fresh = await start({ dtype: 'bf16', compute: 'bf16', cacheDir: undefined as never });
    expect(starts[1]!.answers).toEqual(fresh.answers);
    expect(starts[0]!.answers).not.toEqual(fresh.answers);
  });

  test('a checkpoint that was written anew is packed anew, though its first bytes are the same', async () => {
    await start();
    const weights = join(files.base, 'model.safetensors');
    const later = new Date(Date.now() + 5000);
    utimesSync(weights, later, later);
    expect((await start()).weightsFrom).toBe('files');
    expect((await start()).weightsFrom).toBe('cache');
    expect(kept()).toHaveLength(2);
  });

  test('a file that is cut off, empty or damaged is packed anew without a warning', async () => {
    const { answers } = await start();
    const [name] = kept();
    const path = join(cacheDir, name!);
    const whole = readFileSync(path);
    for (const damage of [
      () => truncateSync(path, 5000),
      () => writeFileSync(path, ''),
      () => writeFileSync(path, Buffer.alloc(whole.length)),
      () => writeFileSync(path, Buffer.concat([whole.subarray(0, 4096), Buffer.alloc(whole.length - 4096)])),
    ]) {
      damage();
      expect(await start()).toMatchObject({ weightsFrom: 'files', warnings: [], answers });
      expect(readFileSync(path).equals(whole)).toBe(true);
    }
    expect(await start()).toMatchObject({ weightsFrom: 'cache', answers });
  });

  test('a folder that can’t be used is a warning, and the base serves', async () => {
    const { answers } = await start({ cacheDir: undefined as never });
    const logged: unknown[] = [];
    const logger = { warn: (...given: unknown[]) => logged.push(given) };
    cacheDir = join(files.base, 'config.json', 'below');
    const blocked = await start({ logger });
    expect(blocked).toMatchObject({ weightsFrom: 'files', answers });
    expect(blocked.warnings).toEqual([{ code: 'WARN_BASE_CACHE', message: expect.stringContaining(cacheDir) }]);
    expect(logged).toEqual([
      [blocked.warnings[0]!.message, { code: 'WARN_BASE_CACHE' }],
      [expect.stringContaining(cacheDir), { code: 'WARN_ADAPTER_CACHE' }],
    ]);

    cacheDir = join(files.root, 'occupied');
    await start();
    const [name] = kept();
    rmSync(join(cacheDir, name!));
    mkdirSync(join(cacheDir, name!));
    expect((await start()).warnings).toMatchObject([{ code: 'WARN_BASE_CACHE' }]);
    expect(kept()).toEqual([name]);
  });

  // That nothing is left where writing was cut short, test/native/engine/weight_cache_engine_test.cc says.
  test('an abort rejects and leaves no part of a file', async () => {
    const controller = new AbortController();
    const onProgress = ({ phase }: LoadProgress) => phase === 'cache' && controller.abort();
    expect(await codeOf(start({ signal: controller.signal, onProgress }))).toBe('ERR_ABORTED');
    expect(kept().filter((name) => !name.endsWith('.weights'))).toEqual([]);
    await start();
    expect(kept()).toHaveLength(1);
  });

  test('several starts at once all serve, and leave one file', async () => {
    const starts = await Promise.all(Array.from({ length: 4 }, () => start()));
    for (const { answers, warnings } of starts)
      expect({ answers, warnings }).toEqual({ answers: starts[0]!.answers, warnings: [] });
    expect(kept()).toHaveLength(1);
    expect((await start()).weightsFrom).toBe('cache');
  });

  test('a base whose file is removed or replaced while it is loaded goes on', async () => {
    await start();
    await using base = await loadBase({ path: files.base, cacheDir, limits: { maxContext: 256 } });
    expect(base.info.weightsFrom).toBe('cache');
    const ask = async () => (await base.generate({ prompt: 'x', maxTokens: 8, ignoreEos: true }).result).tokens;
    const before = await ask();
    rmSync(cacheDir, { recursive: true });
    expect(await ask()).toEqual(before);
    await start();
    expect(await ask()).toEqual(before);
  });
});
