// One read for all: what 32 requests in shared batches gain over the same requests one by one, on the shape of
// Qwen2.5-0.5B, beside what the machine's limits (measured in the same run) allow. OPENLORA_RESULTS=<file> keeps the numbers.

import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { loadBase, type Base, type EngineStats, type Result } from '../../src/index.js';
import { ADAPTER_WEIGHTS, HEAD_WEIGHTS, LAYER_WEIGHTS, SHAPE, writeAdapter, writeBase } from './half-billion.js';

const root = fileURLToPath(new URL('../../', import.meta.url));
const bench = join(root, 'build/release/openlora_bench');
const command = 'npx vitest run --project long test/long/batching.test.ts';

const REQUESTS = 32;
const ADAPTERS = 8;
const OUTPUT = 16;
const ROUNDS = 4;
const BATCH_ROWS = 256;
/** Held beside the weights: the tokenizer of 151,936 tokens in its thread. */
const TOKENIZER_BYTES = 192 * 2 ** 20;

const { vocab, hidden, layers, heads, kvHeads, headDim, intermediate, context } = SHAPE;
const sizes = { vocab, hidden, layers, heads, kvHeads, headDim, intermediate, context };

const promptLength = (i: number) => 4 + ((i * 5) % 17);
/** One request in nine uses the base alone. */
const adapterOf = (i: number) => (i % (ADAPTERS + 1) < ADAPTERS ? `a${i % (ADAPTERS + 1)}` : undefined);

interface Limits {
  cpu: string;
  threads: number;
  ops: string;
  readGbs: number;
  fmaGflops: number;
}

const median = (values: readonly number[]) => [...values].sort((a, b) => a - b)[values.length >> 1]!;
const limitsNow = () =>
  JSON.parse(execFileSync(bench, ['limits', '--quick', '--json'], { encoding: 'utf8' })) as Limits;

/** Of this process, in bytes: VmRSS, VmHWM, RssAnon, … */
function memory(key: string): number {
  const line = new RegExp(`^${key}:\\s+(\\d+) kB`, 'm').exec(readFileSync('/proc/self/status', 'utf8'));
  return Number(line?.[1]) * 1024;
}

/** Milliseconds that the limits allow for the steps of these requests, all of them together or one after another. */
function allowedMs(requests: readonly number[], isTogether: boolean, { readGbs, fmaGflops }: Limits): number {
  const stepMs = (rows: number, logitRows: number, adapters: number, steps = 1) => {
    const weights = steps * (LAYER_WEIGHTS + HEAD_WEIGHTS + adapters * ADAPTER_WEIGHTS);
    const products = LAYER_WEIGHTS * rows + HEAD_WEIGHTS * logitRows + ADAPTER_WEIGHTS * rows;
    return Math.max((weights * 4) / readGbs, (products * 2) / fmaGflops) / 1e6;
  };
  const ofBatch = (batch: readonly number[]) => {
    const prompts = batch.reduce((sum, i) => sum + promptLength(i), 0);
    const adapters = new Set(batch.map(adapterOf).filter((id) => id !== undefined)).size;
    const prefill = stepMs(prompts, batch.length, adapters, Math.ceil(prompts / BATCH_ROWS));
    return prefill + (OUTPUT - 1) * stepMs(batch.length, batch.length, adapters);
  };
  return isTogether ? ofBatch(requests) : requests.reduce((sum, i) => sum + ofBatch([i]), 0);
}

describe.skipIf(!existsSync(bench))('the shape of Qwen2.5-0.5B in f32 (needs build/release/openlora_bench)', () => {
  let folder: string;
  let base: Base;
  const report: Record<string, unknown> = {};

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'openlora-half-billion-'));
    const began = performance.now();
    await writeBase(join(folder, 'base'));
    for (let i = 0; i < ADAPTERS; i++) await writeAdapter(join(folder, `a${i}`), i);
    report.writeSeconds = seconds(began);
  });
  afterAll(async () => {
    await base?.dispose();
    if (folder) rmSync(folder, { recursive: true, force: true });
    process.stdout.write(`${JSON.stringify(report, null, 2)}\n`);
    if (process.env.OPENLORA_RESULTS)
      writeFileSync(process.env.OPENLORA_RESULTS, `${JSON.stringify(report, null, 2)}\n`);
  });

  const seconds = (began: number) => Number(((performance.now() - began) / 1000).toFixed(2));
  const mebibytes = (bytes: number) => Math.round(bytes / 2 ** 20);
  const ask = (i: number): Promise<Result> => {
    const adapter = adapterOf(i);
    const tokens = Array.from({ length: promptLength(i) }, (_, k) => (i * 7919 + k * 104_729) % SHAPE.vocab);
    const request = { tokens, maxTokens: OUTPUT, ignoreEos: true, temperature: i % 2, seed: i };
    return base.generate(adapter === undefined ? request : { ...request, adapter }).result;
  };
  const timed = async (run: () => Promise<unknown>) => {
    const began = performance.now();
    await run();
    return performance.now() - began;
  };

  test('loads with one copy of its weights in memory', async () => {
    const before = memory('VmRSS');
    const began = performance.now();
    base = await loadBase({
      path: join(folder, 'base'),
      limits: { deviceMemory: '768MiB', maxContext: 1024, maxBatchTokens: BATCH_ROWS },
      prefixCache: false, // the same prompts are measured alone and together
    });
    report.loadSeconds = seconds(began);
    const { bytes } = base.stats();
    const grown = memory('VmRSS') - before;
    const highest = memory('VmHWM') - before;
    report.memory = {
      weightsMiB: mebibytes(bytes.base),
      workspaceMiB: mebibytes(bytes.workspace),
      rssGrowthMiB: mebibytes(grown),
      highestGrowthMiB: mebibytes(highest),
    };
    expect(bytes.base).toBeGreaterThan((LAYER_WEIGHTS + HEAD_WEIGHTS) * 4);
    expect(bytes.base).toBeLessThan((LAYER_WEIGHTS + HEAD_WEIGHTS) * 4 * 1.01);
    expect(highest).toBeLessThan(bytes.base * 1.05 + TOKENIZER_BYTES);
    expect(grown).toBeGreaterThan(bytes.base * 0.98);
  });

  test('reads each weight once a step, whatever its rows', async () => {
    for (let i = 0; i < ADAPTERS; i++) await base.registerAdapter(`a${i}`, join(folder, `a${i}`));
    const everyone = Array.from({ length: REQUESTS }, (_, i) => i);
    await Promise.all(everyone.map(ask)); // loads the adapters
    const before = base.stats();
    const rssBefore = memory('VmRSS');
    await Promise.all(everyone.map(ask));
    const after = base.stats();
    const delta = (key: 'steps' | 'rows' | 'weightBytesRead' | 'loraBytesRead' | 'tokensOut') =>
      after[key] - before[key];
    const embedded = delta('rows') * SHAPE.hidden * 4;
    expect(delta('tokensOut')).toBe(REQUESTS * OUTPUT);
    expect(delta('weightBytesRead')).toBe(delta('steps') * (LAYER_WEIGHTS + HEAD_WEIGHTS) * 4 + embedded);
    expect(delta('loraBytesRead')).toBeLessThanOrEqual(delta('steps') * ADAPTERS * ADAPTER_WEIGHTS * 4 * 1.02);
    const held = (stats: EngineStats) => stats.bytes.base + stats.bytes.workspace + stats.bytes.adapters;
    report.serving = {
      rssMiB: mebibytes(rssBefore),
      heldMiB: mebibytes(held(after)),
      rowsPerStep: delta('rows') / delta('steps'),
    };
    expect(memory('VmRSS') - rssBefore).toBeLessThan(64 * 2 ** 20);
  });

  test('gives 32 mixed requests four times the tokens a second of the same one by one', async () => {
    const everyone = Array.from({ length: REQUESTS }, (_, i) => i);
    const together: number[] = [];
    const alone: number[] = [];
    const limits: Limits[] = [];
    const [loadAverage] = loadavg(); // above the number of threads: the machine was shared
    for (let round = 0; round < ROUNDS; round++) {
      limits.push(limitsNow());
      together.push(await timed(() => Promise.all(everyone.map(ask))));
      for (const i of everyone.filter((index) => index % ROUNDS === round)) alone.push(await timed(() => ask(i)));
    }
    const read = median(limits.map(({ readGbs }) => readGbs));
    const fma = median(limits.map(({ fmaGflops }) => fmaGflops));
    const limit = { ...limits[0]!, readGbs: read, fmaGflops: fma };
    const aloneMs = alone.reduce((sum, ms) => sum + ms, 0);
    const togetherMs = median(together);
    const ratio = aloneMs / togetherMs;
    const allowed = allowedMs(everyone, false, limit) / allowedMs(everyone, true, limit);
    const tokens = REQUESTS * OUTPUT;
    Object.assign(report, {
      machine: { cpu: limit.cpu, threads: limit.threads, ops: limit.ops, node: process.version, loadAverage },
      date: new Date().toISOString().slice(0, 10),
      revision: execFileSync('git', ['rev-parse', 'HEAD'], { cwd: root, encoding: 'utf8' }).trim(),
      command,
      sizes: { ...sizes, requests: REQUESTS, adapters: ADAPTERS, outputTokens: OUTPUT },
      limits: { readGbs: read, fmaGflops: fma },
      oneByOne: result(aloneMs, tokens, allowedMs(everyone, false, limit)),
      together: { ...result(togetherMs, tokens, allowedMs(everyone, true, limit)), roundsMs: together.map(Math.round) },
      ratio,
      ratioOfLimits: allowed,
    });
    expect(ratio).toBeGreaterThanOrEqual(Math.min(4, 0.7 * allowed));
  });

  const result = (ms: number, tokens: number, limitMs: number) => ({
    milliseconds: Math.round(ms),
    tokensPerSecond: (tokens / ms) * 1000,
    ofLimit: limitMs / ms,
  });
});
