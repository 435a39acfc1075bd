// Tenants can't disturb each other: requests through a pool in which adapters are evicted all the time, while adapters of the
// same names are registered anew with other content, answer as each does alone. Token by token, and log-probabilities too.

import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { loadBase, OpenLoraError, type Base, type Result } from '../../../src/index.js';
import { noAddon } from './addon.js';
import { writeAdapter, writeTinyCheckpoint, type TinyCheckpoint } from './tiny-checkpoint.js';

const REQUESTS = 12_000;
const AT_ONCE = 24;
const CONTENTS = 48;
const NAMES = 24;
const PROMPTS = 6;
const SEEDS = 4;
const TENANTS = ['a', 'b', 'c', undefined];
/** Names that get other content, each so many requests. */
const REQUESTS_PER_CHANGE = 20;
const ANSWER = 12;

/** A pseudo-random integer below `end`; the same on every run. */
function drawer(seed: number): (end: number) => number {
  let state = seed;
  return (end) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % end;
  };
}

interface Triple {
  /** -1: the base alone. */
  content: number;
  prompt: number;
  seed: number;
}

const keyOf = ({ content, prompt, seed }: Triple) => `${content}/${prompt}/${seed}`;

/** Prompts that share their first tokens, of 3 to 68 tokens. */
const tokensOf = (prompt: number) => Array.from({ length: 3 + 13 * prompt }, (_, i) => 3 + ((i * 7) % 250));

const requestOf = ({ prompt, seed }: Triple) => ({
  tokens: tokensOf(prompt),
  ...{ maxTokens: ANSWER, ignoreEos: true, temperature: 1, seed, logprobs: 1 },
});

const answerOf = ({ tokens, logprobs }: Result) => JSON.stringify([tokens, logprobs]);

describe.skipIf(noAddon)('12,000 requests for 48 adapters in a pool that holds a few', () => {
  let files: TinyCheckpoint;
  let folders: string[];
  /** By triple: what it answers alone. */
  const alone = new Map<string, string>();
  /** By generation. */
  const contents = new Map<string, number>();

  beforeAll(async () => {
    files = writeTinyCheckpoint();
    folders = Array.from({ length: CONTENTS }, (_, i) =>
      writeAdapter(join(files.root, `content-${i}`), [1, 3, 8, 16, 24, 64][i % 6]!, 500 + i),
    );
    await using base = await loadBase({ path: files.base, limits: { deviceMemory: '64MiB' } });
    for (const [content, folder] of folders.entries()) {
      const { generation } = await base.registerAdapter(`alone-${content}`, folder);
      contents.set(generation, content);
    }
    expect(contents.size).toBe(CONTENTS);
    for (let content = -1; content < CONTENTS; content++) {
      for (let prompt = 0; prompt < PROMPTS; prompt++) {
        for (let seed = 0; seed < SEEDS; seed++) {
          const triple = { content, prompt, seed };
          const adapter = content < 0 ? {} : { adapter: `alone-${content}` };
          // Each has a salt of its own: nothing but itself.
          const cacheSalt = keyOf(triple);
          const result = await base.generate({ ...requestOf(triple), ...adapter, cacheSalt }).result;
          alone.set(keyOf(triple), answerOf(result));
        }
      }
    }
    expect(base.stats().adapters.evictions).toBe(0);
  });
  afterAll(() => {
    if (files !== undefined) rmSync(files.root, { recursive: true, force: true });
  });

  test('answer as they do alone, while names change their content', async () => {
    const draw = drawer(20_261_128);
    await using base = await loadBase({ path: files.base, limits: { deviceMemory: '1MiB' }, threads: 2 });
    for (let name = 0; name < NAMES; name++) await base.registerAdapter(`n${name}`, folders[name]!);
    const seen = new Set<string>();
    const mismatches: string[] = [];
    let cached = 0;
    let changes = 0;
    const run = async () => {
      const name = draw(10) === 0 ? -1 : draw(NAMES);
      const triple = { content: -1, prompt: draw(PROMPTS), seed: draw(SEEDS) };
      const tenant = TENANTS[draw(TENANTS.length)];
      const result = await base.generate({
        ...requestOf(triple),
        ...(name < 0 ? {} : { adapter: `n${name}` }),
        ...(tenant === undefined ? {} : { tenant }),
      }).result;
      const generation = result.adapters[0]?.generation;
      if (generation !== undefined) triple.content = contents.get(generation)!;
      cached += result.usage.cachedInput;
      seen.add(keyOf(triple));
      if (answerOf(result) !== alone.get(keyOf(triple))) mismatches.push(keyOf(triple));
    };
    let started = 0;
    const worker = async () => {
      while (started < REQUESTS) {
        started++;
        if (started % REQUESTS_PER_CHANGE === 0) {
          await change(base, draw);
          changes++;
        }
        await run();
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, worker));
    const { adapters, preemptions, bytes } = base.stats();
    expect(mismatches).toEqual([]);
    expect(seen.size).toBeGreaterThanOrEqual(500);
    expect(changes).toBe(REQUESTS / REQUESTS_PER_CHANGE);
    expect(cached).toBeGreaterThan(0);
    expect(adapters.evictions).toBeGreaterThanOrEqual(REQUESTS / 5);
    expect(preemptions).toBeGreaterThan(0);
    expect(bytes.kv).toBe(0);
  });

  async function change(base: Base, draw: (end: number) => number): Promise<void> {
    try {
      await base.registerAdapter(`n${draw(NAMES)}`, folders[draw(CONTENTS)]!);
    } catch (error) {
      // A later change of the same name counts.
      if (!OpenLoraError.is(error) || error.code !== 'ERR_ADAPTER_SUPERSEDED') throw error;
    }
  }
});
