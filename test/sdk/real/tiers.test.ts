// Adapters on disk, in the page cache and in memory, on the real addon. Skipped where none was built (npm run build:native).

import { existsSync, readdirSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { loadBase, type Base, type LoadBaseOptions } from '../../../src/index.js';
import { codeOf } from '../fake-parts.js';
import { noAddon } from './addon.js';
import { writeAdapter, writeTinyCheckpoint, type TinyCheckpoint } from './tiny-checkpoint.js';

const MODULES = ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj'];

describe.skipIf(noAddon)('tiers', () => {
  let files: TinyCheckpoint;
  let cacheDir: string;
  /** 580 KiB each in f32: one of them fits into the smallest pool. */
  let large: string[];

  beforeEach(() => {
    files = writeTinyCheckpoint();
    cacheDir = join(files.root, 'packed');
    large = [0, 1, 2].map((i) => writeAdapter(join(files.root, `large ${i}`), 160, 300 + i, MODULES));
  });
  afterEach(() => rmSync(files.root, { recursive: true }));

  const open = (options: Partial<LoadBaseOptions> = {}) =>
    loadBase({
      path: files.base,
      threads: 1,
      cacheDir,
      ...options,
      limits: { deviceMemory: '1MiB', ...options.limits },
    });
  const ask = async (base: Base, adapter: string) => {
    const { tokens, logprobs, adapters } = await base.generate({
      prompt: 'hello', adapter, maxTokens: 8, ignoreEos: true, logprobs: 0,
    }).result; // prettier-ignore
    return { answer: { tokens, logprobs }, tier: adapters[0]!.tier };
  };
  const packs = () => (existsSync(join(cacheDir, 'adapters')) ? readdirSync(join(cacheDir, 'adapters')).sort() : []);

  test('an adapter is packed once, for this start and the next, and answers the same bits from every tier', async () => {
    let wanted: unknown;
    {
      await using base = await open();
      for (const i of [0, 1]) await base.registerAdapter(`${i}`, large[i]!);
      const first = await ask(base, '0');
      wanted = first.answer;
      expect(first.tier).toBe('registered');
      expect(base.adapters.get('0')!.tier).toBe('resident');
      await ask(base, '1');
      expect(base.adapters.get('0')!.tier).toBe('host');
      expect(await ask(base, '0')).toEqual({ answer: wanted, tier: 'host' });
      expect(await ask(base, '0')).toEqual({ answer: wanted, tier: 'resident' });
      expect(base.adapters.stats()).toMatchObject({
        registered: 2, resident: 1, host: 2, loads: 3, evictions: 2, packs: 2,
        hits: { registered: 2, host: 1, loading: 0, resident: 1 },
      }); // prettier-ignore
      expect(packs()).toEqual([0, 1].map(() => expect.stringMatching(/^[0-9a-f]{32}\.adapter$/)));
      expect(statSync(join(cacheDir, 'adapters')).mode & 0o777).toBe(0o700);
      expect(statSync(join(cacheDir, 'adapters', packs()[0]!)).mode & 0o777).toBe(0o600);
    }
    await using base = await open();
    await base.registerAdapter('other name', large[0]!);
    rmSync(large[0]!, { recursive: true }); // packed: what was registered is served
    expect(await ask(base, 'other name')).toEqual({ answer: wanted, tier: 'registered' });
    expect(base.adapters.stats()).toMatchObject({ packs: 0, loads: 1 });
  });

  test('without cacheDir packs live as long as the base, for this user alone', async () => {
    const folders = () => readdirSync(tmpdir()).filter((name) => name.startsWith('openlora-packs-'));
    const before = folders();
    const base = await open({ cacheDir: undefined as never });
    await base.registerAdapter('a', large[0]!);
    await ask(base, 'a');
    const [folder] = folders().filter((name) => !before.includes(name));
    expect(readdirSync(join(tmpdir(), folder!)).filter((name) => name.endsWith('.adapter'))).toHaveLength(1);
    expect(statSync(join(tmpdir(), folder!)).mode & 0o777).toBe(0o700);
    await base.dispose();
    expect(existsSync(join(tmpdir(), folder!))).toBe(false);
  });

  test('prefetch, preload and pin bring adapters to their tiers', async () => {
    await using base = await open();
    for (const i of [0, 1]) await base.registerAdapter(`${i}`, large[i]!);
    await Promise.all([base.prefetch('0'), base.prefetch('0'), base.prefetch('1')]);
    expect(['0', '1'].map((id) => base.adapters.get(id)!.tier)).toEqual(['host', 'host']);
    expect((await ask(base, '0')).tier).toBe('host');
    await base.prefetch('0');
    expect((await base.registerAdapter('2', large[2]!, { preload: 'device' })).tier).toBe('resident');
    expect((await ask(base, '2')).tier).toBe('resident');
    await base.unregisterAdapter('2');
    expect((await base.registerAdapter('2', large[2]!, { preload: 'host' })).tier).toBe('host');
    expect(await codeOf(base.registerAdapter('3', large[2]!, { pin: true }))).toBe('ERR_ADAPTER_PIN_LIMIT');
    expect(base.adapters.get('3')).toBeUndefined();
  });

  test('a pinned adapter stays, and what no longer fits beside it fails', async () => {
    await using base = await open({ limits: { pinnedAdapterMemory: '1MiB' } });
    expect((await base.registerAdapter('pinned', large[0]!, { pin: true })).tier).toBe('resident');
    await base.registerAdapter('small', files.adapters[2]!);
    await base.registerAdapter('large', large[1]!);
    expect(await codeOf(ask(base, 'large'))).toBe('ERR_OUT_OF_MEMORY');
    await ask(base, 'small');
    expect((await ask(base, 'pinned')).tier).toBe('resident');
    expect(base.adapters.stats().pinnedBytes).toBeGreaterThan(580 << 10);
    await base.unregisterAdapter('pinned');
    expect(base.adapters.stats().pinnedBytes).toBe(0);
    await ask(base, 'large');
  });

  test('the host tier and the disk hold no more than their limits', async () => {
    await using base = await open({ limits: { hostAdapterMemory: '700KiB', adapterCacheDisk: '1400KiB' } });
    for (const i of [0, 1, 2]) await base.registerAdapter(`${i}`, large[i]!);
    for (const id of ['0', '1', '2', '0', '1']) await ask(base, id);
    const { host, hostBytes } = base.adapters.stats();
    expect(host).toBe(1);
    expect(hostBytes).toBeLessThan(700 << 10);
    const sizeOf = (name: string) => statSync(join(cacheDir, 'adapters', name), { throwIfNoEntry: false })?.size ?? 0;
    // Whoever waits for a pack is told before others make room for it.
    await expect.poll(() => packs().reduce((sum, name) => sum + sizeOf(name), 0)).toBeLessThanOrEqual(1400 << 10);
  });

  test('a damaged pack is made anew', async () => {
    await using base = await open({ limits: { hostAdapterMemory: 0 } });
    for (const i of [0, 1]) await base.registerAdapter(`${i}`, large[i]!);
    const { answer } = await ask(base, '0');
    const [pack] = packs();
    const path = join(cacheDir, 'adapters', pack!);
    const whole = readFileSync(path);
    for (const damage of [
      () => truncateSync(path, 5000),
      () =>
        writeFileSync(
          path,
          whole.map((byte, i) => (i === whole.length >> 1 ? byte ^ 4 : byte)),
        ),
      () => rmSync(path),
    ]) {
      await ask(base, '1');
      damage();
      expect((await ask(base, '0')).answer).toEqual(answer);
      expect(readFileSync(path).equals(whole)).toBe(true);
    }
  });

  test('a cacheDir that can’t be used for adapters is one warning, and they are served', async () => {
    const logged: string[] = [];
    const logger = { warn: (_: string, details?: { code?: string }) => logged.push(details!.code!) };
    writeFileSync(join(files.root, 'a file'), '');
    cacheDir = join(files.root, 'plain');
    let wanted: unknown;
    {
      await using base = await open();
      await base.registerAdapter('0', large[0]!);
      wanted = (await ask(base, '0')).answer;
    }
    rmSync(join(cacheDir, 'adapters'), { recursive: true });
    writeFileSync(join(cacheDir, 'adapters'), 'in the way');
    await using base = await open({ logger });
    for (const i of [0, 1]) await base.registerAdapter(`${i}`, large[i]!);
    for (const id of ['0', '1', '0']) await ask(base, id);
    expect((await ask(base, '0')).answer).toEqual(wanted);
    expect(logged).toEqual(['WARN_ADAPTER_CACHE']);
    await base.prefetch('1');
    expect(base.adapters.get('1')!.tier).toBe('registered');
  });
});
