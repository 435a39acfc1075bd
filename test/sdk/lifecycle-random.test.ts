// Random calls on a few names, at random moments of each other: whatever happens, a request is served by what its name meant, or
// fails with a code, and in the end nothing is left.

import { mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { OpenLoraError, type AdapterResolver, type GenerateRequest } from '../../src/index.js';
import { openFake, turns } from './fake-parts.js';

const SEEDS = 30;
const CALLS = 150;
/** What a call may end with, besides well. */
const CODES = new Set([
  'ERR_ABORTED',
  'ERR_ADAPTER_FILE',
  'ERR_ADAPTER_GENERATION',
  'ERR_ADAPTER_NOT_FINITE',
  'ERR_ADAPTER_NOT_FOUND',
  'ERR_ADAPTER_RESOLVER',
  'ERR_ADAPTER_SUPERSEDED',
]);

const systemTmp = tmpdir();
const root = mkdtempSync(join(systemTmp, 'openlora-lifecycle-'));
afterAll(() => {
  process.env.TMPDIR = systemTmp;
  rmSync(root, { recursive: true });
});

/** mulberry32. */
function drawsOf(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) % below;
  };
}

test.each(Array.from({ length: SEEDS }, (_, i) => i + 1))('seed %i', async (seed) => {
  const draw = drawsOf(seed);
  const tmp = join(root, String(seed));
  mkdirSync(tmp);
  process.env.TMPDIR = tmp;
  const path = () => ['x', 'y', 'missing', 'bad'][draw(4)]!;
  const source = () => (draw(2) ? path() : { config: { peft_type: 'LORA' }, tensors: new Uint8Array(draw(300)) });
  const adapterResolver: AdapterResolver = async () => {
    for (let wait = draw(6); wait > 0; wait--) await turns(1);
    if (draw(4) === 0) throw new Error('none of your business');
    return draw(4) === 0 ? null : source();
  };
  const { base, engine } = await openFake(
    { adapterFailure: ({ files }) => (files[0] === 'bad' ? { code: 'ERR_ADAPTER_NOT_FINITE', message: 'NaN' } : undefined) },
    { adapterResolver, resolverLimits: { maxResolved: 3, maxConcurrent: 2, missTtlMs: draw(2) } },
  ); // prettier-ignore

  const running: Promise<void>[] = [];
  const outcomes = new Map<string, number>();
  const end = (what: string, promise: Promise<unknown>) => {
    const note = (code: string) => {
      outcomes.set(code, (outcomes.get(code) ?? 0) + 1);
      if (code !== 'ok' && !CODES.has(code)) throw new Error(`seed ${seed}: ${what} ended with ${code}`);
    };
    running.push(promise.then(() => note('ok'), (error: unknown) => note(OpenLoraError.is(error) ? error.code : String(error)))); // prettier-ignore
  };
  const tenantOf = () => [{}, {}, { tenant: 't' }][draw(3)] as { tenant?: string };

  const request = () => {
    const [id, o, controller] = ['abc'[draw(3)]!, tenantOf(), new AbortController()];
    const meant = base.adapters.get(id, o)?.generation;
    const prompt = draw(2) ? { prompt: 'ab' } : { tokens: [97] };
    const asked = {
      ...prompt,
      ...o,
      adapter: id,
      maxTokens: 1 + draw(20),
      signal: controller.signal,
    } as GenerateRequest;
    const { result } = base.generate(asked);
    const seen = result.then(({ adapters }) => {
      expect(adapters).toHaveLength(1);
      // What the name meant at the call; or what it came to mean.
      if (meant !== undefined) expect(adapters[0]!.generation).toBe(meant);
    });
    end('generate', seen);
    if (draw(5) === 0) running.push(turns(draw(8)).then(() => controller.abort()));
  };
  const register = () => {
    const [id, o, controller] = ['abc'[draw(3)]!, tenantOf(), new AbortController()];
    const expected = [undefined, undefined, null, base.adapters.get(id, o)?.generation][draw(4)];
    const more = expected === undefined ? {} : { expectedGeneration: expected };
    end('registerAdapter', base.registerAdapter(id, source(), { ...o, ...more, signal: controller.signal }));
    if (draw(5) === 0) running.push(turns(draw(8)).then(() => controller.abort()));
  };
  const unregister = () =>
    end('unregisterAdapter', base.unregisterAdapter('abc'[draw(3)]!, { ...tenantOf(), drain: draw(2) === 0 }));

  for (let i = 0; i < CALLS; i++) {
    [request, request, request, register, register, unregister][draw(6)]!();
    await turns(draw(4));
  }
  await Promise.all(running);
  // An abort rejects before the engine has heard of it.
  await base.drain();
  expect(outcomes.get('ok')).toBeGreaterThan(CALLS / 4);
  expect(engine.violations).toEqual([]);
  expect(base.stats().queue).toEqual({ waiting: 0, running: 0 });

  for (const { id, tenant } of [...base.adapters.list()]) {
    await base.unregisterAdapter(id, tenant === undefined ? {} : { tenant });
  }
  await turns(3);
  expect(engine.adapters.size).toBe(0);
  const registered = engine.calls.filter((call) => call.startsWith('registerAdapter'));
  expect(registered.length).toBeGreaterThan(10);
  const files = () =>
    readdirSync(tmp).flatMap((folder) => readdirSync(join(tmp, folder)).filter((name) => name !== 'owner'));
  for (let i = 0; files().length > 0 && i < 100; i++) await turns(1);
  expect(files()).toEqual([]);
  await base.dispose();
  expect(readdirSync(tmp)).toEqual([]);
});
