// Time inside our own calls and callbacks on the JS thread, on the real addon: p99 at most 1 ms, at most 10 ms, best of three.

import { openSync, readFileSync, readSync, rmSync } from 'node:fs';
import { performance, PerformanceObserver } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { checkAdapter, readAdapterFolder, readBaseFolder } from '../../../src/formats/index.js';
import { openTokenizer } from '../../../src/formats/tokenizer.js';
import { loadNative } from '../../../src/native/load.js';
import { createLoadBase } from '../../../src/sdk/load-base.js';
import { noAddon } from './addon.js';
import { writeAdapter, writeTinyCheckpoint, type TinyCheckpoint } from './tiny-checkpoint.js';

const CALLS = ['registerAdapter', 'unregisterAdapter', 'submit', 'cancel', 'pause', 'stats', 'adapterTier'] as const;

/**
 * Milliseconds that this thread ran (in ticks of 4) and that it waited for a processor since it began, where Linux says
 * so: a busy machine's time, not ours.
 */
const threadTimes: () => [ran: number, waited: number] = (() => {
  try {
    const file = openSync('/proc/thread-self/schedstat', 'r');
    const bytes = Buffer.alloc(128);
    return () => {
      const [ran, waited] = bytes.toString('latin1', 0, readSync(file, bytes, 0, 128, 0)).split(' ');
      return [Number(ran) / 1e6, Number(waited) / 1e6];
    };
  } catch {
    return () => [0, 0];
  }
})();

interface Sample {
  name: string;
  began: number;
  end: number;
  /** Without the wait for a processor. */
  ms: number;
  ran: number;
}

/**
 * In a garbage collection this thread sleeps until V8's helper threads are done, which on a busy machine wait for a
 * processor (up to 160 ms of sleep was seen, for 3 ms of work). There the time that it ran counts, and a tick.
 */
function withoutCollections(samples: Sample[], collections: readonly { startTime: number; duration: number }[]): void {
  for (const sample of samples) {
    if (sample.ms < 1 || sample.ran === 0) continue;
    const { began, end } = sample;
    const isCollecting = collections.some((gc) => gc.startTime < end && gc.startTime + gc.duration > began);
    if (isCollecting) sample.ms = Math.min(sample.ms, sample.ran + 4);
  }
}

/** The addon, with every call into it and every callback out of it timed. */
function timedNative(spent: Sample[]) {
  const timed = <T>(name: string, action: () => T): T => {
    const [ran, waited] = threadTimes();
    const began = performance.now();
    try {
      return action();
    } finally {
      const end = performance.now();
      const now = threadTimes();
      spent.push({ name, began, end, ms: end - began - (now[1] - waited), ran: now[0] - ran });
    }
  };
  const { binding, path } = loadNative();
  const open: typeof binding.open = (options, onEvents) => {
    const engine = timed('open', () =>
      binding.open(options, (records, events) => timed('callback', () => onEvents(records, events))),
    );
    for (const name of CALLS) {
      const call = engine[name].bind(engine) as (...args: unknown[]) => unknown;
      Object.defineProperty(engine, name, { value: (...args: unknown[]) => timed(name, () => call(...args)) });
    }
    return engine;
  };
  return { timed, loadNative: () => ({ binding: { ...binding, open }, path, rejected: [] }) };
}

describe.skipIf(noAddon)('our own time on the JS thread', () => {
  let files: TinyCheckpoint;
  beforeAll(() => {
    files = writeTinyCheckpoint();
  });
  afterAll(() => rmSync(files.root, { recursive: true }));

  async function run(): Promise<{ p99: number; max: number; count: number; slowest: string }> {
    const spent: Sample[] = [];
    const collections: { startTime: number; duration: number }[] = [];
    const observer = new PerformanceObserver((list) => void collections.push(...list.getEntries()));
    observer.observe({ entryTypes: ['gc'] });
    const { timed, loadNative } = timedNative(spent);
    const loadBase = createLoadBase({ loadNative, readBaseFolder, readAdapterFolder, checkAdapter, openTokenizer });
    const base = await loadBase({ path: files.base });
    const folders = Array.from({ length: 20 }, (_, i) => writeAdapter(`${files.root}/many-${i}`, 1 + i, i));
    await Promise.all(
      folders.map((folder, i) => timed('base.registerAdapter', () => base.registerAdapter(`m${i}`, folder))),
    );
    const sources = folders.map((folder) => ({
      config: JSON.parse(readFileSync(`${folder}/adapter_config.json`, 'utf8')) as object,
      tensors: readFileSync(`${folder}/adapter_model.safetensors`),
    }));
    await Promise.all(
      sources.map((source, i) => timed('base.registerAdapter', () => base.registerAdapter(`b${i}`, source))),
    );
    for (let round = 0; round < 4; round++) {
      const requests = Array.from({ length: 64 }, (_, i) =>
        timed('base.generate', () =>
          base.generate({
            prompt: 'hello '.repeat(1 + (i % 20)),
            maxTokens: 64,
            ignoreEos: true,
            logprobs: 2,
            adapter: `m${i % 20}`,
          }),
        ),
      );
      await Promise.all(
        requests.map(async (generation, i) => {
          for await (const _ of generation) if (i % 16 === 0) break;
          timed('base.stats', () => base.stats());
        }),
      );
    }
    await base.dispose();
    await sleep(20);
    collections.push(...observer.takeRecords());
    observer.disconnect();
    withoutCollections(spent, collections);
    spent.sort((x, y) => x.ms - y.ms);
    const slowest = spent.at(-1)!;
    return {
      p99: spent[Math.floor(spent.length * 0.99)]!.ms,
      max: slowest.ms,
      count: spent.length,
      slowest: slowest.name,
    };
  }

  test('stays within a millisecond', async () => {
    let p99 = Infinity;
    let max = Infinity;
    for (let attempt = 0; attempt < 3; attempt++) {
      const result = await run();
      process.stdout.write(
        `cost: ${result.count} calls and callbacks: p99 ${result.p99.toFixed(3)} ms, max ${result.max.toFixed(3)} ms (${result.slowest})\n`,
      );
      p99 = Math.min(p99, result.p99);
      max = Math.min(max, result.max);
    }
    expect(p99).toBeLessThanOrEqual(1);
    expect(max).toBeLessThanOrEqual(10);
  }, 120_000);
});
