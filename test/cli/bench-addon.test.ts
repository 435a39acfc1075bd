// `openlora bench` on the real addon: short runs of each bench, so that none can rot, and how it ends.

import type { StatsFs } from 'node:fs';
import type * as promises from 'node:fs/promises';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { stripVTControlCharacters } from 'node:util';
import { Worker } from 'node:worker_threads';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import type { BenchEvent, BenchOptions } from '../../src/native/binding.js';
import { loadNative } from '../../src/native/load.js';
import { reportFault, type BenchReport } from '../../src/cli/bench/report.js';
import { baseBytes } from '../../src/cli/bench/random-weights.js';
import { namedShape } from '../../src/cli/bench/shapes.js';
import { goalsOf } from '../long/adapters-goals.js';
import { missingForAddon } from './addon-family.js';
import { runCli } from './run-cli.js';

const missing = missingForAddon();
const TIMEOUT_MS = 120_000;

/** In place of the free bytes of the disk. */
const disk: { free?: number } = {};
vi.mock('node:fs/promises', async (original) => {
  const real = await original<typeof promises>();
  const statfs = async (path: string): Promise<StatsFs> => {
    const found = await real.statfs(path);
    return disk.free === undefined ? found : { ...found, bavail: Math.floor(disk.free / found.bsize) };
  };
  return { ...real, statfs };
});

describe.skipIf(missing)(`openlora bench on the real addon ${missing}`, { timeout: TIMEOUT_MS }, () => {
  let folder: string;
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'openlora-bench-test-'));
  });
  afterAll(() => rmSync(folder, { recursive: true }));

  async function report(...words: string[]): Promise<BenchReport> {
    const { code, stdout, stderr } = await runCli(['bench', ...words, '--quick', '--json']);
    expect({ code, stderr: stderr.replace(/^writing .*\n/, '') }).toEqual({ code: 0, stderr: '' });
    const found = JSON.parse(stdout) as BenchReport;
    expect(reportFault(found)).toBeUndefined();
    expect(found.isQuick).toBe(true);
    for (const { name, unit, median, low, high, limits } of found.lines) {
      if (unit !== '%') expect(low, name).toBeGreaterThan(0);
      expect(low <= median && median <= high, name).toBe(true);
      if (limits) for (const value of Object.values(limits)) expect(value, name).not.toBe(0);
    }
    return found;
  }

  it('machine: reading and every instruction, by one thread and by all', async () => {
    const { lines, machine, command } = await report('machine', '--threads', '2');
    expect(machine.threads).toBe(2);
    const names = lines.map(({ name }) => name);
    for (const name of ['read', 'f32 fma'])
      for (const threads of ['1 thread', '2 threads']) expect(names).toContain(`${name}, ${threads}`);
    expect(command).toBe('openlora bench machine --quick --threads 2');
  });

  it('ops: cases, each compared with the reference', async () => {
    const html = join(folder, 'ops.html');
    const { lines, sizes } = await report('ops', '--filter', 'qkv', '--html', html);
    expect(sizes).toEqual({ filter: 'qkv', cases: lines.length });
    expect(lines.every(({ error, errorMax, limits }) => error! <= errorMax! && limits !== undefined)).toBe(true);
    expect(readFileSync(html, 'utf8')).toContain('<svg');
  });

  it('ops: a table whose lines fit the terminal', async () => {
    const { code, stdout } = await runCli(['bench', 'ops', '--quick', '--filter', 'qkv'], { columns: 110 });
    expect(code).toBe(0);
    const lines = stdout.split('\n').map((text) => stripVTControlCharacters(text));
    expect(lines.find((text) => text.startsWith('project'))).toMatch(/^project qkv.*… +[\d,.]+ +µs/);
    expect(Math.max(...lines.slice(3).map((text) => text.length))).toBeLessThanOrEqual(110);
  });

  it('ops: a filter that no case has is refused', async () => {
    const { code, stderr } = await runCli(['bench', 'ops', '--quick', '--filter', 'no such case']);
    expect({ code, stderr }).toEqual({ code: 2, stderr: expect.stringContaining("is in no case's name") });
  });

  it.each([
    ['decode', ['batch 1, context 16, base', 'batch 4, context 16, 2 adapters']],
    ['prefill', ['prompt 64, base', 'prompt 64, 1 adapter']],
  ])('%s: on the base and with adapters, beside the limits; nothing is left on the disk', async (bench, names) => {
    const { lines } = await report(bench, '--folder', folder, '--dtype', 'f32');
    for (const name of names) expect(lines.find((line) => line.name === name)).toMatchObject({ unit: 'tokens/s' });
    for (const line of lines) expect(line.retention !== undefined).toBe(/^(batch|prompt).*adapter/.test(line.name));
    const found = lines.map((line) => line.name);
    expect(found.slice(-7)).toEqual([
      'load',
      'of it packing',
      'load to the first token',
      expect.stringMatching(/adapters? to their first tokens$/),
      'weights held',
      'peak RSS',
      'second start, weights from the cache',
    ]);
    const msOf = (name: string) => lines.find((line) => line.name === name)!.median;
    expect(msOf('of it packing')).toBeGreaterThan(0);
    expect(msOf('of it packing')).toBeLessThan(msOf('load'));
    expect(readdirSync(folder).filter((name) => name.startsWith('openlora-bench-'))).toEqual([]);
  });

  it('decode: reads every weight once a step, and an adapter for each row that has its own', async () => {
    const words = ['decode', '--dtype', 'f32', '--batch', '4', '--adapters', '4', '--rank', '8', '--model', 'tiny'];
    const { lines } = await report(...words);
    // Four layers of 589,824 weights, a head of 2048 × 256, and a row of the embedding for each request.
    const weights = (4 * 589_824 + 2048 * 256 + 4 * 256) * 4;
    const [base, mixed] = lines;
    // Four layers, K and V of 2 heads of 64; contexts of 16 and of what was generated, which differs from run to run.
    const kvOfToken = 4 * 2 * 2 * 64 * 4;
    const context = (base!.limits!.bytes - weights) / kvOfToken / 4;
    expect(context).toBeGreaterThan(16);
    expect(context).toBeLessThan(16 + 400);
    // 4 layers × 8 ranks × (in + out of the seven modules).
    expect(mixed!.limits!.operations).toBeGreaterThan(base!.limits!.operations);
    expect(mixed!.limits!.bytes).toBeGreaterThan(weights + 4 * 4 * 8 * 4096 * 4);
  });

  it('decode: compute bf16 is measured beside the instruction that computes it', async () => {
    const words = ['decode', '--batch', '4', '--adapters', '0', '--model', 'tiny', '--compute', 'bf16'];
    const { lines, sizes } = await report(...words);
    expect(sizes).toMatchObject({ dtype: 'bf16', compute: 'bf16' });
    const hasDot = loadNative().binding.probe().cpuFeatures.includes('avx512-bf16');
    if (!hasDot) expect(lines[0]!.limits!.peak).toBe('f32 fma');
    expect(['f32 fma', 'bf16 dot']).toContain(lines[0]!.limits!.peak);
    expect((await report(...words.slice(0, -2))).sizes).not.toHaveProperty('compute');
  });

  it('decode: adapters in int8 are half of what a step reads of them', async () => {
    const words = ['decode', '--batch', '4', '--adapters', '4', '--rank', '16', '--model', 'tiny'];
    const [bf16, int8] = [await report(...words), await report(...words, '--adapter-dtype', 'int8')];
    expect(int8.sizes).toMatchObject({ dtype: 'bf16', 'adapters held in': 'int8' });
    expect(bf16.sizes).not.toHaveProperty('adapters held in');
    const adaptersOf = ({ lines: [base, mixed] }: BenchReport) => mixed!.limits!.bytes - base!.limits!.bytes;
    // 17/32; contexts, and so KV, differ from run to run.
    expect(adaptersOf(int8) / adaptersOf(bf16)).toBeGreaterThan(0.4);
    expect(adaptersOf(int8) / adaptersOf(bf16)).toBeLessThan(0.75);
  });

  it('decode: KV in int8 is read at a byte an element and its scales', async () => {
    const words = ['decode', '--batch', '4', '--adapters', '0', '--model', 'tiny', '--kv-dtype'];
    const [int8, f32] = [await report(...words, 'int8'), await report(...words, 'f32')];
    expect(int8.sizes).toMatchObject({ dtype: 'bf16', KV: 'int8' });
    expect(int8.lines[0]!.limits!.bytes).toBeLessThan(f32.lines[0]!.limits!.bytes);
    expect((await report(...words, 'bf16')).sizes).not.toHaveProperty('KV');
  });

  it('adapters: few of them fit, where each was found, and what it costs; the folder is used again', async () => {
    const kept = join(folder, 'kept');
    const words = ['adapters', '--folder', kept, '--dtype', 'f32', '--registered', '10,20', '--batch', '2'];
    const { lines, sizes } = await report(...words);
    expect(sizes).toMatchObject({
      model: 'tiny',
      registered: '10,20',
      modules: 'q_proj v_proj',
      rank: 8,
      requests: 16,
    });
    expect(sizes).not.toHaveProperty('asked for');
    // Four layers × 8 ranks × (in + out of q and v) in f32.
    expect(sizes['adapter bytes']).toBe(4 * 8 * (256 + 256 + 256 + 128) * 4);
    const names = lines.map(({ name }) => name);
    for (const name of [
      '10 registered, registering the 5th',
      '20 registered, registering the last',
      '20 registered, first requests, first token p99, disk',
      '10 registered, zipf',
      '20 registered, uniform, all 20 resident',
      '20 registered, zipf, all resident, first token p50, resident',
      '10 registered, uniform, from resident',
      '20 registered, bytes of adapters',
      '20 registered, bytes of the process (RSS)',
      '20 registered, packing ahead, of each',
      '20 registered, next token of others p99, quiet',
      '20 registered, next token of others p50, first packing',
      '20 registered, first token beside others p99, loads from disk',
      '2 adapters, a model for each',
      '2 adapters, one model',
    ])
      expect(names).toContain(name);
    for (const form of [/^0\.5 × the \d+ that fit$/, /^2 × the \d+ that fit, first token p99$/])
      expect(names.filter((name) => form.test(name))).toHaveLength(1);
    const shares = lines.filter(({ unit, name }) => unit === '%' && name.startsWith('10 registered, zipf'));
    expect(shares).toMatchObject([{ name: '10 registered, zipf, from resident', median: 100 }]);
    expect(lines.find(({ name }) => name === '20 registered, zipf')!.retention).toBeGreaterThan(0);
    const [root] = readdirSync(kept);
    // Those that were asked for are packed in one place; the base that has them all packs none.
    const packs = (cache: string) =>
      readdirSync(join(kept, root!, cache), { recursive: true }).filter((name) => String(name).endsWith('.adapter'));
    expect(packs('cache').length).toBeGreaterThan(0);
    expect(packs('cache-without-packs')).toEqual([]);
    const written = () => statSync(join(kept, root!, 'adapters', '00007', 'adapter_model.safetensors')).mtimeMs;
    const before = written();
    await report(...words, '--requests', '8');
    expect([readdirSync(kept), written()]).toEqual([[root], before]);
    const file = (i: string) => readFileSync(join(kept, root!, 'adapters', i, 'adapter_model.safetensors'));
    expect(file('00007').equals(file('00008'))).toBe(false);
  });

  it('adapters: up to 8 times as many in use as fit; the shares of memory that were asked for are in the sizes', async () => {
    const found = await report('adapters', '--dtype', 'f32', '--registered', '10,96', '--batch', '2');
    const { lines, sizes } = found;
    const names = lines.map(({ name }) => name);
    for (const times of [0.5, 1, 2, 4, 8])
      for (const what of ['', ', first token p50', ', first token p99']) {
        const form = new RegExp(`^${times} × the \\d+ that fit${what}$`);
        expect(names.filter((name) => form.test(name))).toHaveLength(1);
      }
    const medianOf = (name: string) => lines.find((line) => line.name === name)!.median;
    const all = 96 * (sizes['adapter bytes'] as number);
    // There is a least pool, which takes more than its share of so few adapters.
    const pool = medianOf('96 registered, bytes of pool') * 2 ** 20;
    expect(pool / all).toBeGreaterThan(0.05);
    expect(sizes['pool, % of the bytes of 96']).toBeCloseTo((100 * pool) / all, 0);
    expect(sizes['host tier, % of the bytes of 96']).toBe(20);
    expect(Object.keys(sizes).filter((key) => key.includes('% of the bytes'))).toHaveLength(2); // all of 10 fit
    for (const what of ['next token of others p99', 'first token beside others p50'])
      for (const kind of ['quiet', 'quiet again']) expect(names).toContain(`96 registered, ${what}, ${kind}`);
    expect(names).toContain('memory of an adapter more, computed');
    // After the traces of all.
    const at = (name: string) => names.indexOf(`96 registered, ${name}`);
    expect(at('bytes of the process (RSS)')).toBeGreaterThan(at('uniform'));
    expect(Object.keys(goalsOf(found))).toHaveLength(12);
  });

  it('adapters: fewer than asked for where the disk is smaller, which is said', async () => {
    const base = 2 * baseBytes(namedShape('tiny'), 'f32');
    try {
      // Room for 15, each of them twice, of what is left beside the base and 16 MiB.
      disk.free = (base + 16 * 2 ** 20 + 15.5 * 2 * (4 * 8 * 896 * 4 + 64 * 2 ** 10)) / 0.8;
      const words = ['bench', 'adapters', '--dtype', 'f32', '--registered', '10,20', '--quick', '--json'];
      const { code, stdout, stderr } = await runCli(words);
      expect(code).toBe(0);
      expect(stderr).toContain('the disk has room for 15 adapters, not for 20');
      const { sizes, lines } = JSON.parse(stdout) as BenchReport;
      expect(sizes).toMatchObject({ registered: '10,15', 'asked for': '10,20' });
      expect(lines.map(({ name }) => name)).toContain('15 registered, zipf');
      disk.free /= 2;
      const { code: refused, stderr: why } = await runCli(words);
      expect({ refused, why }).toEqual({ refused: 1, why: expect.stringContaining('[ERR_BENCH_DISK]') });
    } finally {
      delete disk.free;
    }
  });

  it('measures a config.json with all that random weights can have', async () => {
    for (const [family, more] of [
      ['qwen3', { head_dim: 16 }],
      ['llama', { attention_bias: true, head_dim: 8 }],
      ['qwen2', { tie_word_embeddings: true }],
    ] as const) {
      const config = {
        ...{ architectures: [`${family[0]!.toUpperCase()}${family.slice(1)}ForCausalLM`], model_type: family },
        ...{ hidden_size: 32, num_hidden_layers: 1, num_attention_heads: 4, num_key_value_heads: 2 },
        ...{ intermediate_size: 48, vocab_size: 300, max_position_embeddings: 512, rope_theta: 10_000, ...more },
      };
      const path = join(folder, 'config.json');
      writeFileSync(path, JSON.stringify(config));
      const { lines } = await report('prefill', '--config', path, '--prompt', '8', '--adapters', '0');
      expect(lines[0]!.name).toBe('prompt 8, base');
    }
  });

  it('ends with 130 when it is interrupted while it writes, and takes the weights away', async () => {
    const interruption = new AbortController();
    const empty = mkdtempSync(join(folder, 'interrupted-'));
    const running = runCli(['bench', 'decode', '--model', 'tinyllama', '--folder', empty], {
      signal: interruption.signal,
    });
    while (readdirSync(empty).length === 0) await delay(5);
    interruption.abort();
    expect(await running).toMatchObject({ code: 130, stdout: '' });
    expect(readdirSync(empty)).toEqual([]);
  });

  it('ends with 130 when it is interrupted while it measures', async () => {
    for (const bench of ['ops', 'prefill']) {
      const interruption = new AbortController();
      const running = runCli(['bench', bench, ...(bench === 'ops' ? [] : ['--model', 'tiny', '--repeats', '1000'])], {
        signal: interruption.signal,
      });
      await delay(1500);
      interruption.abort();
      expect(await running).toMatchObject({ code: 130, stdout: '' });
    }
  });
});

describe.skipIf(missing)(`the addon's bench ${missing}`, { timeout: TIMEOUT_MS }, () => {
  const options: BenchOptions = {
    kind: 'limits',
    device: 'cpu',
    cudaImages: '',
    threads: 1,
    simd: 'auto',
    rounds: 1,
    isQuick: true,
    filter: '',
  };
  const bench = (given: object, onEvent: unknown = () => undefined) =>
    loadNative().binding.bench(given as BenchOptions, onEvent as (event: BenchEvent) => void);

  it.each([
    [{ ...options, kind: 'other' }, /bench\.kind.*limits or ops/],
    [{ ...options, threads: 1025 }, /bench\.threads.*0 to 1024/],
    [{ ...options, rounds: 0 }, /bench\.rounds.*1 to 10000/],
    [{ ...options, simd: 1 }, /bench\.simd/],
    [{}, /bench\.kind/],
  ])('refuses %j', (given, message) => {
    expect(() => bench(given)).toThrow(message);
  });

  it('has the system forget files, and refuses what is none', () => {
    const { binding, path } = loadNative();
    expect(typeof binding.forgetPages(path)).toBe('boolean');
    expect(() => binding.forgetPages(join(tmpdir(), 'openlora-no-such-file'))).toThrow("can't be opened");
    expect(() => binding.forgetPages(1 as unknown as string)).toThrow('path must be a string');
  });

  it('refuses what is no callback', () => {
    expect(() => bench(options, 1)).toThrow('onEvent must be a function');
  });

  const lackingSimd = () => (loadNative().binding.probe().simdLevels.includes('neon') ? 'avx2' : 'neon');

  it.each([
    [() => ({ simd: lackingSimd() }), 'ERR_SIMD_LEVEL'],
    [() => ({ device: 'cuda:0' }), 'ERR_CUDA_DRIVER'],
    [() => ({ kind: 'ops', device: 'cuda:0' }), 'ERR_CUDA_DRIVER'],
  ])('says what this machine lacks in its last event: %o %s', async (lacking, code) => {
    const events: BenchEvent[] = [];
    await new Promise<void>((resolve) => {
      bench({ ...options, ...lacking() }, (event: BenchEvent) => {
        events.push(event);
        if (event.kind === 'ended') resolve();
      });
    });
    expect(events).toMatchObject([{ kind: 'ended', code }]);
  });

  it('ends with a worker that is terminated while it measures', async () => {
    const { path } = loadNative();
    const code = `require(${JSON.stringify(path)}).bench(${JSON.stringify({ ...options, kind: 'ops', isQuick: false })},
      (event) => require('node:worker_threads').parentPort.postMessage(event));`;
    const worker = new Worker(code, { eval: true });
    const [first] = await new Promise<[BenchEvent]>((resolve) => worker.once('message', (event) => resolve([event])));
    expect(first).toMatchObject({ kind: 'begun', threads: 1 });
    await worker.terminate();
  });
});
