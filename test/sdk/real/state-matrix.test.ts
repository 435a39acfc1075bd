// The state matrix on the real addon: every public method in every state, beside work that has to end as the state says.

import { createReadStream, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { loadBase, type Base } from '../../../src/index.js';
import { codeOf } from '../fake-parts.js';
import { expectedOf, METHODS as COMMON, STATES, type State } from '../state-matrix.js';
import { noAddon } from './addon.js';
import { writeTinyCheckpoint, type TinyCheckpoint } from './tiny-checkpoint.js';

const LONG = { prompt: 'hello', maxTokens: 1000, ignoreEos: true };
const isDisposal = (method: string) => method === 'dispose' || method === 'Symbol.asyncDispose';

describe.skipIf(noAddon)('on the real addon', () => {
  let files: TinyCheckpoint;
  let alone: string;
  let methods: typeof COMMON;
  const bases: Base[] = [];

  async function open(): Promise<Base> {
    const base = await loadBase({ path: files.base, limits: { deviceMemory: '8MiB' } });
    bases.push(base);
    await base.registerAdapter('a', files.adapters[0]!);
    return base;
  }

  beforeAll(async () => {
    files = writeTinyCheckpoint();
    const folder = files.adapters[1]!;
    const config = JSON.parse(readFileSync(join(folder, 'adapter_config.json'), 'utf8')) as object;
    const weights = join(folder, 'adapter_model.safetensors');
    methods = {
      ...COMMON,
      registerAdapter: (base) => base.registerAdapter('b', folder),
      'registerAdapter of bytes': (base) => base.registerAdapter('b', { config, tensors: readFileSync(weights) }),
      'registerAdapter of a stream': (base) =>
        base.registerAdapter('b', { config, tensors: createReadStream(weights) }),
    };
    const base = await open();
    alone = await base.generate(LONG).text();
    await base.dispose();
  });
  afterAll(async () => {
    for (const base of bases) await base.dispose();
    rmSync(files.root, { recursive: true });
  });

  const outcomeOf = async (method: string, base: Base) => {
    const code = await codeOf(async () => methods[method]!(base));
    return code === 'no error' ? 'ok' : code;
  };

  /** What is under way in a state; resolves to a code, or to what came of it. */
  async function begin(state: State, base: Base): Promise<() => Promise<string>> {
    if (state === 'closing') void base.dispose();
    if (state === 'closed') await base.dispose();
    if (state === 'loading') {
      const loading = codeOf(base.registerAdapter('c', files.adapters[2]!));
      return () => loading;
    }
    if (state !== 'generating') return () => Promise.resolve('no error');
    const generation = base.generate(LONG);
    const iterator = generation[Symbol.asyncIterator]();
    await iterator.next();
    // So slowly that back-pressure keeps it in flight for a while.
    void (async () => {
      while (!(await iterator.next()).done) await sleep(1);
    })().catch(() => undefined);
    return async () => {
      let code = 'no error';
      const text = await generation.text().catch((error: { code: string }) => (code = error.code));
      if (code === 'no error') expect(text).toBe(alone);
      return code;
    };
  }

  /** So that the next method finds the base as the first one did. */
  async function restore(base: Base): Promise<void> {
    for (const id of ['b', 'c']) if (base.adapters.get(id)) await base.unregisterAdapter(id);
    if (!base.adapters.get('a')) await base.registerAdapter('a', files.adapters[0]!);
    await base.drain();
  }

  test.each(STATES)(
    'every method in the state %s',
    async (state) => {
      const isOpen = state !== 'closing' && state !== 'closed';
      const names = Object.keys(methods);
      const expected = Object.fromEntries(names.map((name) => [name, expectedOf(name, state)]));
      const found: Record<string, string> = {};
      let base = await open();
      if (!isOpen) {
        // The state lasts no longer than the first wait: all are called at once.
        await begin(state, base);
        await Promise.all(names.map(async (name) => (found[name] = await outcomeOf(name, base))));
      } else {
        for (const name of names) {
          const underWay = await begin(state, base);
          found[name] = await outcomeOf(name, base);
          const isEnded = isDisposal(name) && state !== 'idle';
          expect([name, await underWay()]).toEqual([name, isEnded ? 'ERR_CLOSED' : 'no error']);
          if (isDisposal(name)) base = await open();
          else await restore(base);
        }
      }
      expect(found).toEqual(expected);
    },
    60_000,
  );

  test('.result alone ends, however long the answer, without anyone iterating', async () => {
    await using base = await open();
    const results = Array.from({ length: 8 }, (_, i) => base.generate({ ...LONG, maxTokens: 600, seed: i }).result);
    for (const { tokens, finishReason } of await Promise.all(results)) {
      expect([tokens.length, finishReason]).toEqual([600, 'length']);
    }
  });

  test('disposing ends readers in every stage: before their first token, between two, behind, paused', async () => {
    const base = await open();
    const behind = base.generate({ ...LONG, maxTokens: 2000 })[Symbol.asyncIterator]();
    await behind.next();
    await sleep(100);
    const between = base.generate({ ...LONG, maxTokens: 2000 });
    const reading = codeOf(async () => {
      for await (const _ of between);
    });
    const fresh = base.generate({ ...LONG, adapter: 'a', maxTokens: 2000 });
    const first = codeOf(fresh[Symbol.asyncIterator]().next());
    await base.dispose();
    expect([await reading, await first, await codeOf(fresh.result)]).toEqual(Array(3).fill('ERR_CLOSED'));
    const rest = codeOf(async () => {
      while (!(await behind.next()).done);
    });
    expect(await rest).toBe('ERR_CLOSED');
    expect(await codeOf(base.generate(LONG)[Symbol.asyncIterator]().next())).toBe('ERR_CLOSED');
  });
});
