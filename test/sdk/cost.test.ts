// What the SDK itself costs on the JS thread. Numbers are printed; the bounds are loose, so that a busy machine passes.

import { performance } from 'node:perf_hooks';
import { describe, expect, test } from 'vitest';
import type { OnEvents } from '../../src/native/binding.js';
import { decodeRecords } from '../../src/sdk/records.js';
import { createLoadBase } from '../../src/sdk/load-base.js';
import { encodeRecords } from './encode-records.js';
import { fakeAddon } from './fake-native.js';
import { fakeFolder, FakeReader, FakeTokenizer } from './fake-parts.js';

const REQUESTS = 64;
const STEPS = 400;

/** Best of three, in microseconds: other work on the machine only ever adds. */
async function best(measure: () => Promise<number> | number): Promise<number> {
  const runs = [await measure(), await measure(), await measure()];
  return Math.min(...runs);
}

function report(what: string, microseconds: number): void {
  process.stdout.write(`cost: ${what}: ${microseconds.toFixed(2)} us\n`);
}

function stepRecords(hasLogprobs: boolean): ArrayBuffer {
  const top = Array.from({ length: 20 }, (_, i) => ({ token: i, logprob: -i }));
  return encodeRecords(
    Array.from({ length: REQUESTS }, (_, i) => {
      const record = { request: i + 1, kind: 0, token: 65, text: ' word' };
      return hasLogprobs ? { ...record, logprob: -1, top } : record;
    }),
  );
}

describe('the JS thread', () => {
  test.each([
    ['plain', false],
    ['with 20 log-probabilities', true],
  ])('decodes a token record, %s, in microseconds', async (name, hasLogprobs) => {
    const records = stepRecords(hasLogprobs);
    let seen = 0;
    const sink = { onToken: () => void seen++, onPromptLogprob: () => undefined, onText: () => undefined };
    const cost = await best(() => {
      const began = performance.now();
      for (let i = 0; i < STEPS; i++) decodeRecords(records, sink);
      return ((performance.now() - began) * 1000) / STEPS / REQUESTS;
    });
    report(`decoding a token ${name}`, cost);
    expect(seen).toBe(3 * STEPS * REQUESTS);
    expect(cost).toBeLessThan(100);
  });

  test('delivers a step of 64 tokens to 64 readers well within a millisecond', async () => {
    const sdk = await openMeasured();
    const callbacks: number[] = [];
    const submits: number[] = [];
    const readers = Array.from({ length: REQUESTS }, async () => {
      const began = performance.now();
      const generation = sdk.base.generate({ tokens: [65, 66], maxTokens: STEPS });
      submits.push(performance.now() - began);
      let length = 0;
      for await (const chunk of generation) length += chunk.text.length;
      return length;
    });
    for (let step = 0; step <= STEPS; step++) {
      callbacks.push(sdk.step());
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect(await Promise.all(readers)).toEqual(Array.from({ length: REQUESTS }, () => STEPS));
    await sdk.base.dispose();
    const p99 = (values: number[]) => [...values].sort((a, b) => a - b)[Math.floor(values.length * 0.99)]! * 1000;
    const mean = (callbacks.reduce((sum, value) => sum + value, 0) / callbacks.length) * 1000;
    report('callback of a step, mean', mean);
    report('callback of a step, p99', p99(callbacks));
    report('per token and request', mean / REQUESTS);
    report('generate(), p99', p99(submits));
    expect(mean).toBeLessThan(10_000);
  });

  test('reads a long answer in time that grows with its length, not with its square', async () => {
    const long = (tokens: number) =>
      best(async () => {
        const sdk = await openMeasured(fakeFolder({ spec: { ...fakeFolder().spec, context: 2 ** 20 } }));
        const generation = sdk.base.generate({ tokens: [65], maxTokens: tokens });
        const iterator = generation[Symbol.asyncIterator]();
        let spent = 0;
        for (let i = 0; i < tokens; i++) {
          spent += sdk.step();
          const began = performance.now();
          await iterator.next();
          spent += performance.now() - began;
        }
        await generation.result;
        await sdk.base.dispose();
        return (spent * 1000) / tokens;
      });
    const [short, longer] = [await long(2000), await long(16_000)];
    report('a token of 2,000', short);
    report('a token of 16,000', longer);
    expect(longer).toBeLessThan(short * 4 + 20);
  });
});

/** A base whose engine steps by hand; `step` gives the milliseconds that our callback took. */
async function openMeasured(folder = fakeFolder()) {
  const addon = fakeAddon({ isManual: true });
  let spent = 0;
  const measured = {
    ...addon,
    open: (options: Parameters<typeof addon.open>[0], onEvents: OnEvents) =>
      addon.open(options, (records, events) => {
        const began = performance.now();
        onEvents(records, events);
        spent = performance.now() - began;
      }),
  };
  const opening = createLoadBase({
    loadNative: () => ({ binding: measured, path: 'fake', variant: 'cpu', rejected: [] }),
    openFolderReader: async () => new FakeReader(folder),
    openTokenizer: async () => new FakeTokenizer(),
  })({ path: '/nowhere/base' });
  while (addon.engines.length === 0) await new Promise((resolve) => setImmediate(resolve));
  const engine = addon.engines[0]!;
  for (let i = 0; i < 6; i++) engine.step();
  const base = await opening;
  const step = () => {
    spent = 0;
    engine.step();
    return spent;
  };
  return { base, step };
}
