// Adapters whose files change between their registration and their first use, on the real addon: their own requests say so,
// nothing of them is packed, and streams on the same base at that moment end with exactly what they say alone.

import { existsSync, readdirSync, readFileSync, renameSync, rmSync, statSync, truncateSync, utimesSync, writeFileSync } from 'node:fs'; // prettier-ignore
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { loadBase, type Base } from '../../../src/index.js';
import { noAddon } from './addon.js';
import { Neighbours } from './neighbour.js';
import { writeAdapter, writeTinyCheckpoint, type TinyCheckpoint } from './tiny-checkpoint.js';

const WEIGHTS = 'adapter_model.safetensors';
/** Whole seconds, which a number of JavaScript's sets to the nanosecond. */
const TIME = 1_700_000_000;

describe.skipIf(noAddon)('an adapter whose file, before its first use,', () => {
  let files: TinyCheckpoint;
  let packs: string;
  let base: Base;
  let neighbours: Neighbours;

  beforeAll(async () => {
    files = writeTinyCheckpoint();
    const cacheDir = join(files.root, 'cache');
    packs = join(cacheDir, 'adapters');
    base = await loadBase({
      path: files.base,
      threads: 2,
      cacheDir,
      limits: { maxContext: 512, deviceMemory: '8MiB' },
    });
    await base.registerAdapter('good', files.adapters[2]!);
    neighbours = await Neighbours.of(base, 'good');
  });
  afterAll(async () => {
    await base.dispose();
    rmSync(files.root, { recursive: true });
  });

  const ask = (adapter: string) => base.generate({ prompt: 'hi', adapter, maxTokens: 4, ignoreEos: true }).result;
  const errorOf = (work: Promise<unknown>) =>
    work.then(
      () => 'no error',
      (reason: unknown) => reason,
    );

  test.each<[string, (path: string, other: string) => void, RegExp]>([
    ['is deleted', (path) => rmSync(path), /can't be opened/],
    ['is cut off', (path) => truncateSync(path, statSync(path).size - 4), /is not the file that was registered/],
    ['is emptied', (path) => truncateSync(path, 0), /is not the file that was registered/],
    ['is replaced by another of its size', (path, other) => renameSync(other, path), /is not the file that was/],
    [
      'is overwritten, with its size and its time kept',
      (path, other) => {
        writeFileSync(path, readFileSync(other));
        utimesSync(path, TIME, TIME);
      },
      /has another SHA-256/,
    ],
    [
      'has another bit, with its size and its time kept',
      (path) => {
        const bytes = readFileSync(path);
        bytes[bytes.length - 4]! ^= 1;
        writeFileSync(path, bytes);
        utimesSync(path, TIME, TIME);
      },
      /has another SHA-256/,
    ],
  ])('%s fails alone', async (name, change, says) => {
    const folder = writeAdapter(join(files.root, name), 8, 40);
    const path = join(folder, WEIGHTS);
    const other = join(writeAdapter(join(files.root, `other ${name}`), 8, 41), WEIGHTS);
    utimesSync(path, TIME, TIME);
    const kept = readFileSync(path);
    const before = readdirSync(packs).sort();
    await base.registerAdapter('changed', folder);
    const size = statSync(path).size;
    expect(statSync(other).size).toBe(size);

    change(path, other);
    const errors = await neighbours.during(async () => [
      await errorOf(ask('changed')),
      await errorOf(base.prefetch('changed')),
    ]);
    for (const error of errors) {
      expect(error).toMatchObject({ code: 'ERR_ADAPTER_CHANGED', message: expect.stringMatching(says) as string });
      expect((error as Error).message).toContain(path);
    }
    expect(base.adapters.get('changed')!.tier).toBe('registered');
    expect(readdirSync(packs).sort()).toEqual(before);

    // What was registered answers again once it is registered anew.
    if (existsSync(path)) rmSync(path);
    writeFileSync(path, kept);
    const { generation } = await base.registerAdapter('changed', folder);
    expect((await ask('changed')).adapters[0]!.generation).toBe(generation);
    await base.unregisterAdapter('changed');
    for (const pack of readdirSync(packs)) if (!before.includes(pack)) rmSync(join(packs, pack));
  });
});
