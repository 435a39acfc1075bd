import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { build } from 'esbuild';
import { describe, expect, test } from 'vitest';
import type { Base, Generation } from '../../src/index.js';
import { UNREAD_TOKENS_MAX } from '../../src/sdk/generation.js';
import { codeOf, openFake, turns, type FakeTokenizer } from './fake-parts.js';
import { expectedCell, expectedMatrix, METHODS, runCell, STATES } from './state-matrix.js';

describe.each(STATES)('on a base that is %s', (state) => {
  test.each(Object.keys(METHODS))('%s does what the matrix says', async (method) => {
    expect(await runCell(method, state)).toEqual(expectedCell(method, state));
  });
});

test('every public method has a row', async () => {
  const { base } = await openFake();
  const own = [...Object.getOwnPropertyNames(Object.getPrototypeOf(base)), 'info'];
  const groups = Object.entries({ tokenizer: base.tokenizer, adapters: base.adapters });
  const names = [...own, ...groups.flatMap(([group, calls]) => Object.keys(calls).map((name) => `${group}.${name}`))];
  const rows = Object.keys(METHODS).join(' ');
  for (const name of names.filter((name) => name !== 'constructor')) expect(rows).toContain(name);
  await base.dispose();
});

test('in a worker thread every cell is the same', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'openlora-state-'));
  const outfile = join(folder, 'worker.mjs');
  const entry = fileURLToPath(new URL('./state-worker.ts', import.meta.url));
  await build({ entryPoints: [entry], outfile, bundle: true, platform: 'node', format: 'esm', target: 'node20' });
  const worker = new Worker(outfile);
  const cells = await new Promise((resolve, reject) => {
    worker.once('message', resolve);
    worker.once('error', reject);
  });
  await worker.terminate();
  rmSync(folder, { recursive: true });
  expect(cells).toEqual(expectedMatrix());
});

describe('disposing', () => {
  test('ends requests in every stage with ERR_CLOSED, and what waits for an adapter', async () => {
    const { base, engine, tokenizer } = await openFake();
    await base.registerAdapter('a', 'x');
    const running = base.generate({ tokens: [97], maxTokens: 400, adapter: 'a' });
    const paused = base.generate({ tokens: [97], maxTokens: 400 });
    await paused[Symbol.asyncIterator]().next();
    await turns(UNREAD_TOKENS_MAX + 10);
    tokenizer.isHeld = true;
    const encoding = base.generate({ prompt: 'ab' });
    const unregistering = base.unregisterAdapter('a');
    const registering = codeOf(base.registerAdapter('b', 'x'));
    const draining = base.drain();
    const disposing = base.dispose();
    expect(base.dispose()).toBe(disposing);
    for (const { result } of [running, paused, encoding]) expect(await codeOf(result)).toBe('ERR_CLOSED');
    expect(await registering).toBe('ERR_CLOSED');
    await Promise.all([unregistering, draining, disposing]);
    expect(engine.violations).toEqual([]);
    expect(tokenizer.isDisposed).toBe(true);
  });

  test('by `await using`', async () => {
    let engine;
    {
      const fake = await openFake();
      engine = fake.engine;
      await using base = fake.base;
      await base.generate({ prompt: 'ab', maxTokens: 2 }).result;
    }
    expect(engine.isClosed).toBe(true);
  });

  test('draining waits for the requests made before, not for later ones', async () => {
    const { base } = await openFake();
    const order: string[] = [];
    const early = base.generate({ prompt: 'ab', maxTokens: 5 }).result.then(() => order.push('early'));
    const draining = base.drain().then(() => order.push('drained'));
    const late = base.generate({ prompt: 'ab', maxTokens: 300 }).result.then(() => order.push('late'));
    await Promise.all([early, draining, late]);
    expect(order).toEqual(['early', 'drained', 'late']);
    await base.dispose();
  });
});

// The methods of a Generation, in each stage that it can be in.
type Stage = (base: Base, tokenizer: FakeTokenizer) => Promise<Generation>;
const GENERATION_STAGES: Record<string, [result: string, stage: Stage]> = {
  encoding: ['cancelled', async (base, tokenizer) => {
    tokenizer.isHeld = true;
    return base.generate({ prompt: 'ab', maxTokens: 400 });
  }],
  running: ['cancelled', async (base) => {
    const generation = base.generate({ tokens: [97], maxTokens: 400 });
    await turns(5);
    return generation;
  }],
  ended: ['length', async (base) => {
    const generation = base.generate({ tokens: [97], maxTokens: 2 });
    await generation.result;
    return generation;
  }],
  cancelled: ['cancelled', async (base) => {
    const generation = base.generate({ tokens: [97], maxTokens: 400 });
    await turns(5);
    generation.cancel();
    return generation;
  }],
  failed: ['ERR_ADAPTER_NOT_FOUND', async (base) => base.generate({ prompt: 'ab', adapter: 'nobody' })],
  aborted: ['ERR_ABORTED', async (base) => base.generate({ prompt: 'ab', signal: AbortSignal.abort() })],
  closed: ['ERR_CLOSED', async (base) => {
    const generation = base.generate({ tokens: [97], maxTokens: 400 });
    await base.dispose();
    return generation;
  }],
}; // prettier-ignore

const GENERATION_ENDINGS: Record<string, (generation: Generation) => unknown> = {
  'cancel()': (generation) => generation.cancel(),
  'cancel() twice': (generation) => {
    generation.cancel();
    generation.cancel();
  },
  'return()': (generation) => generation[Symbol.asyncIterator]().return!(),
  'Symbol.asyncDispose': (generation) => generation[Symbol.asyncDispose](),
};

describe.each(Object.entries(GENERATION_STAGES))('a generation that is %s', (_name, [expected, stage]) => {
  test.each(Object.entries(GENERATION_ENDINGS))('is ended by %s', async (_method, end) => {
    const { base, engine, tokenizer } = await openFake();
    const generation = await stage(base, tokenizer);
    await end(generation);
    const outcome = await generation.result.then(
      ({ finishReason }) => finishReason,
      (error: { code: string }) => error.code,
    );
    expect(outcome).toBe(expected);
    tokenizer.isHeld = false;
    await base.dispose();
    expect(engine.violations).toEqual([]);
  });
});
