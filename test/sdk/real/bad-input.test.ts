// Every kind of bad input on the real addon: each has its own code and a message that says what, what was got and what was
// wanted; streams on the same base at that moment end with exactly the tokens and log-probabilities that they have alone.

import { rmSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { loadBase, OpenLoraError, type LoadBaseOptions } from '../../../src/index.js';
import { noAddon } from './addon.js';
import { BAD_ADAPTERS, LARGE_RANK, LARGE_TARGETS, UNREADABLE } from './bad-adapters.js';
import { BAD_BASES } from './bad-bases.js';
import type { BadInput, Room, Stage } from './bad-input.js';
import { BAD_REQUESTS } from './bad-requests.js';
import { newFolder, removeDamaged } from './damage.js';
import { Neighbours } from './neighbour.js';
import { writeAdapter, writeTinyCheckpoint, type TinyCheckpoint } from './tiny-checkpoint.js';

const otherAdapter = fileURLToPath(new URL('../../data/parity/llama-gqa/adapters/r1', import.meta.url));
const isRoot = process.getuid?.() === 0;

describe.skipIf(noAddon)('bad input', () => {
  let files: TinyCheckpoint;
  let stage: Stage;
  const rooms: Room[] = [];

  async function roomOf(options: Partial<LoadBaseOptions>): Promise<Room> {
    const base = await loadBase({ path: files.base, threads: 2, ...options });
    await base.registerAdapter('good', files.adapters[2]!);
    const room = { base, neighbours: await Neighbours.of(base, 'good') };
    rooms.push(room);
    return room;
  }

  beforeAll(async () => {
    files = writeTinyCheckpoint();
    const limits = { maxContext: 512, deviceMemory: '8MiB' };
    const strict = await roomOf({ limits, strictBase: true });
    stage = { ...(await roomOf({ limits })), strict, files, otherAdapter };
    await stage.base.registerAdapter('owned', files.adapters[0]!, { tenant: 'a' });
  });
  afterAll(async () => {
    for (const { base } of rooms) await base.dispose();
    rmSync(files.root, { recursive: true });
    removeDamaged();
  });

  async function check([, code, says, attempt, where]: BadInput): Promise<void> {
    const { neighbours } = where === undefined ? stage : stage[where];
    const error: unknown = await neighbours.during(() =>
      attempt(stage).then(
        () => 'no error',
        (reason: unknown) => reason,
      ),
    );
    expect(OpenLoraError.is(error), String(error)).toBe(true);
    expect(error).toMatchObject({ code });
    expect((error as Error).message).toMatch(says);
  }

  const table = (rows: BadInput[]) => rows.map((row) => [`${row[0]} is ${row[1]}`, row] as const);

  describe('adapters:', () => {
    test.each(table(BAD_ADAPTERS))('%s', (_, row) => check(row));
    test.skipIf(isRoot).each(table(UNREADABLE))('%s (root reads everything)', (_, row) => check(row));
  });
  describe('bases:', () => test.each(table(BAD_BASES))('%s', (_, row) => check(row)));
  describe('requests:', () => test.each(table(BAD_REQUESTS))('%s', (_, row) => check(row)));

  test('an adapter that is larger than the pool is refused, and harms nobody', async () => {
    const { base, neighbours } = await roomOf({ limits: { maxContext: 512, deviceMemory: '1MiB' } });
    const error: unknown = await neighbours.during(async () => {
      await base.registerAdapter('large', writeAdapter(newFolder(), LARGE_RANK, 5, LARGE_TARGETS));
      return base.generate({ prompt: 'hi', adapter: 'large', maxTokens: 4 }).result.catch((reason: unknown) => reason);
    });
    expect(error).toMatchObject({ code: 'ERR_OUT_OF_MEMORY' });
    expect((error as Error).message).toMatch(/frames|bytes/);
  });

  test('nothing of it all is left', async () => {
    const { base, strict } = stage;
    await base.drain();
    expect([...base.adapters.list()].map(({ id }) => id)).toEqual(['good', 'owned']);
    expect([...strict.base.adapters.list()].map(({ id }) => id)).toEqual(['good']);
    const { queue, bytes, adapters } = base.stats();
    expect({ queue, kv: bytes.kv, resident: adapters.resident }).toEqual({
      queue: { waiting: 0, running: 0 },
      kv: 0,
      resident: 1,
    });
  });
});
