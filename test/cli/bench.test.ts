// `openlora bench` without the addon: its command line, its results, what it compares and what it plots.

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { compareReports, type Comparison } from '../../src/cli/bench/compare.js';
import { comparisonPage, reportPage } from '../../src/cli/bench/page.js';
import { candidatesFor } from '../../src/cli/complete.js';
import { SeededRandom, traceOf } from '../../src/cli/bench/adapter-trace.js';
import { countFor } from '../../src/cli/bench/adapters-folder.js';
import {
  quantileOf,
  quantileSummary,
  reportFault,
  summary,
  type BenchReport,
  type Line,
} from '../../src/cli/bench/report.js';
import { linearModules, namedShape, readShape, weightsOf } from '../../src/cli/bench/shapes.js';
import { runCli } from './run-cli.js';

const line = (name: string, median: number, more: Partial<Line> = {}): Line => ({
  ...{ name, unit: 'tokens/s', better: 'higher', samples: 5 },
  ...{ median, low: median * 0.95, high: median * 1.05 },
  ...more,
});

const limits = { readGbs: 30, peakGops: 200, peak: 'f32 fma', bytes: 1e9, operations: 1e9, ofLimit: 0.8 };

const report = (lines: Line[], more: Partial<BenchReport> = {}): BenchReport => ({
  schema: 'openlora-bench/1',
  bench: 'decode',
  command: 'openlora bench decode',
  date: '2026-01-01T00:00:00.000Z',
  versions: { openlora: '0.1.0', node: 'v20.19.0' },
  loadAverage: 0.5,
  isQuick: false,
  machine: {
    ...{ cpu: 'A <fast> & "odd" CPU', threads: 2, simd: 'avx512', platform: 'linux x64' },
    ...{ lastLevelCacheBytes: 2 ** 25, memoryBytes: 2 ** 34 },
  },
  sizes: { model: 'tiny', batch: '1,8' },
  lines,
  ...more,
});

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'openlora-bench-test-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

const saved = (name: string, value: unknown): string => {
  const path = join(folder, name);
  writeFileSync(path, typeof value === 'string' ? value : JSON.stringify(value));
  return path;
};

describe('the command line', () => {
  it.each([
    [[], 'BENCH is missing, wanted one of machine, ops, decode, prefill, adapters'],
    [['decod'], "BENCH is 'decod'"],
    [['machine', '--batch', '1'], '--batch is for decode and adapters, not for machine'],
    [['prefill', '--context', '64'], '--context is for decode, not for prefill'],
    [['ops', '--model', 'tiny'], '--model is for decode, prefill and adapters, not for ops'],
    [['ops', '--device', 'cuda:0', '--simd', 'avx2'], '--simd is for --device cpu, not for cuda:0'],
    [['machine', '--device', 'cuda:0', '--threads', '1'], '--threads is for --device cpu, not for cuda:0'],
    [['adapters', '--device', 'cuda:0'], '--device is for machine, ops, decode and prefill, not for adapters'],
    [['ops', '--kv-dtype', 'int8'], '--kv-dtype is for decode, prefill and adapters, not for ops'],
    [['ops', '--compute', 'bf16'], '--compute is for decode, prefill and adapters, not for ops'],
    [['decode', '--compute', 'bf16', '--dtype', 'int8'], '--compute bf16 is for --dtype bf16, not for int8'],
    [['ops', '--adapter-dtype', 'int8'], '--adapter-dtype is for decode, prefill and adapters, not for ops'],
    [['decode', '--adapter-dtype', 'int4'], "--adapter-dtype is 'int4', wanted one of auto, int8"],
    [['decode', '--model', 'huge'], "--model is 'huge', wanted one of qwen2.5-0.5b, tinyllama, demo, tiny"],
    [['decode', '--batch', '1,x'], "--batch is '1,x', wanted distinct integers from 1 to 256"],
    [['decode', '--batch', '1,1'], "--batch is '1,1', wanted distinct integers"],
    [['decode', '--batch', '257'], "--batch is '257', wanted distinct integers from 1 to 256"],
    [['prefill', '--model', 'tiny', '--prompt', '2048'], '--prompt 2048 takes'],
    [['decode', '--context', ''], "--context is ''"],
    [['decode', '--rank', '257'], "--rank is '257', wanted an integer from 1 to 256"],
    [['decode', '--model', 'tiny', '--config', 'x'], '--model and --config both name a shape'],
    [['decode', '--force'], '--force is for --compare'],
    [['adapters', '--adapters', '3'], '--adapters is for decode and prefill, not for adapters'],
    [['decode', '--registered', '10'], '--registered is for adapters, not for decode'],
    [['adapters', '--registered', '10,x'], "--registered is '10,x', wanted distinct integers"],
    [['adapters', '--batch', '1,8'], "--batch is '1,8', wanted one number"],
    [
      ['adapters', '--model', 'demo', '--prompt', '250'],
      '--prompt 250 and --tokens 16: demo is made for 256 positions',
    ],
    [
      ['adapters', '--model', 'demo', '--prompt', '233'], // answers have up to 24
      '--prompt 233 and --tokens 16: demo is made for 256 positions',
    ],
    [['--compare', 'a.json'], 'B.json is missing'],
    [['--compare', 'a.json', 'b.json', 'c.json'], "unexpected argument 'c.json'"],
    [
      ['--compare', 'a.json', 'b.json', '--quick'],
      '--quick is for machine, ops, decode, prefill, adapters, not for --compare',
    ],
  ])('%j is refused', async (words, message) => {
    const { code, stdout, stderr } = await runCli(['bench', ...words]);
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
    expect(stderr).toContain(message);
  });

  it('completes benches, shapes, and files for --compare', async () => {
    const values = async (...words: string[]) => (await candidatesFor(words)).items.map(({ value }) => value);
    expect(await values('bench', '')).toEqual(['machine', 'ops', 'decode', 'prefill', 'adapters']);
    expect(await values('bench', 'decode', '--model', 't')).toEqual(['tinyllama', 'tiny']);
    saved('one.json', '{}');
    expect(await values('bench', '--compare', join(folder, 'one'))).toEqual([join(folder, 'one.json')]);
    expect(await values('bench', '--compare', 'a.json', join(folder, 'one'))).toEqual([join(folder, 'one.json')]);
  });
});

describe('shapes', () => {
  it('have as many weights as the models that they are named after', () => {
    const qwen = weightsOf(namedShape('qwen2.5-0.5b'), 16);
    // 494,032,768 parameters, of which norms and biases are no matrices.
    const vectors = 24 * (2 * 896 + 896 + 2 * 128) + 896;
    expect(qwen.layers + qwen.head + vectors).toBe(494_032_768);
    expect(qwen.adapter).toBe(8_798_208);
    const llama = weightsOf(namedShape('tinyllama'), 16);
    expect(llama.layers + 2 * llama.head + (2 * 22 + 1) * 2048).toBe(1_100_048_384);
  });

  it('come from a config.json', () => {
    const config = {
      ...{ model_type: 'qwen3', hidden_size: 64, num_hidden_layers: 3, num_attention_heads: 4, num_key_value_heads: 2 },
      ...{ intermediate_size: 96, vocab_size: 300, max_position_embeddings: 128 },
    };
    const shape = readShape(saved('config.json', config));
    expect(shape).toMatchObject({ layers: 3, headDim: 128, hasQkNorm: true, isTied: false, biases: [] });
    expect(linearModules(shape)['self_attn.q_proj']).toEqual([512, 64]);
  });

  it.each([
    ['nonsense', 'it is no JSON'],
    ['[]', 'it is no object'],
    [{ model_type: 'gemma2' }, 'model_type is "gemma2", wanted one of llama, mistral, qwen2, qwen3'],
    [{ model_type: 'llama', hidden_size: 2.5 }, 'hidden_size is 2.5, wanted an integer'],
    [{ model_type: 'llama', mlp_bias: true }, 'mlp_bias is set'],
  ])('that nothing is written for are refused: %j', async (config, message) => {
    const path = saved('refused.json', config);
    const { code, stderr } = await runCli(['bench', 'decode', '--config', path]);
    expect({ code, stderr }).toEqual({ code: 1, stderr: expect.stringContaining('[ERR_BENCH_MODEL]') });
    expect(stderr).toContain(message);
  });

  it('that the disk has no room for are refused, and nothing is left there', async () => {
    const config = { ...namedShape('tinyllama').config, hidden_size: 2 ** 16, num_hidden_layers: 512 };
    const path = saved('large.json', { ...config, intermediate_size: 2 ** 18 });
    const { code, stderr } = await runCli(['bench', 'decode', '--config', path, '--folder', folder]);
    expect({ code, stderr }).toEqual({ code: 1, stderr: expect.stringContaining('[ERR_BENCH_DISK]') });
    expect(stderr).toMatch(/the weights take [\d.]+ TiB, and .* has .* left/);
  });
});

describe('adapters on a disk with little room', () => {
  it.each([
    ['twice the bytes of each', 200, 0, 100, 10],
    ['own files that are there', 100, 10, 100, 10],
    ['as many as are wanted', 10_000, 0, 100, 100],
    ['fewer than have their files there', 20, 10, 100, 6],
    ['none', -500, 10, 100, 0],
  ])('%s', (_, room, there, wanted, count) => {
    expect(countFor(room, 10, there, wanted)).toBe(count);
  });
});

describe('a result', () => {
  it('summarises repeats by their median and whole spread', () => {
    expect(summary([3, 1, 2])).toEqual({ median: 2, low: 1, high: 3, samples: 3 });
    expect(summary([4, 1])).toEqual({ median: 2.5, low: 1, high: 4, samples: 2 });
  });

  it('summarises many samples by a quantile, and its spread over five parts of them', () => {
    const hundred = Array.from({ length: 100 }, (_, i) => i + 1);
    expect([quantileOf(hundred, 0.5), quantileOf(hundred, 0.99), quantileOf([7], 0.99)]).toEqual([50, 99, 7]);
    expect(quantileSummary(hundred, 0.5)).toEqual({ median: 50, low: 10, high: 90, samples: 100 });
    expect(quantileSummary([3, 1, 2], 0.99)).toEqual({ median: 3, low: 3, high: 3, samples: 3 });
  });

  it('is whole, or it is said what is wrong with it', () => {
    const whole = report([line('a', 1, { limits })]);
    expect(reportFault(JSON.parse(JSON.stringify(whole)))).toBeUndefined();
    expect(reportFault(null)).toContain('is no object');
    expect(reportFault({ ...whole, schema: 'other/1' })).toContain('schema');
    expect(reportFault({ ...whole, bench: 'other' })).toContain('bench');
    expect(reportFault({ ...whole, lines: {} })).toContain('no array');
    expect(reportFault({ ...whole, lines: [{ ...whole.lines[0]!, median: null }] })).toContain('median of a line');
    expect(reportFault({ ...whole, lines: [line('a', 1), line('a', 2)] })).toContain("two lines are called 'a'");
    expect(reportFault({ ...whole, lines: [{ ...whole.lines[0]!, limits: {} }] })).toContain("limits of 'a'");
    expect(reportFault({ ...whole, machine: {} })).toContain('cpu of machine');
    expect(reportFault({ ...whole, sizes: { a: [] } })).toContain('sizes');
  });
});

describe('a trace', () => {
  const countsOf = (trace: readonly number[], adapters: number) => {
    const counts = new Array<number>(adapters).fill(0);
    for (const adapter of trace) counts[adapter]!++;
    return counts;
  };
  const LENGTH = 100_000;

  it('is the same for the same seed alone', () => {
    const of = (seed: number) => traceOf('zipf', 1000, 50, new SeededRandom(seed));
    expect(of(3)).toEqual(of(3));
    expect(of(3)).not.toEqual(of(4));
  });

  // Five standard deviations of a binomial count.
  it.each(['zipf', 'uniform'] as const)('of %s names adapters as often as it should', (kind) => {
    const adapters = 1000;
    const weights = Array.from({ length: adapters }, (_, i) => (kind === 'zipf' ? 1 / (i + 1) : 1));
    const sum = weights.reduce((a, b) => a + b);
    const counts = countsOf(traceOf(kind, adapters, LENGTH, new SeededRandom(1)), adapters);
    for (const adapter of [0, 1, 2, 9, 99, 999]) {
      const expected = (LENGTH * weights[adapter]!) / sum;
      expect(Math.abs(counts[adapter]! - expected), `adapter ${adapter}`).toBeLessThan(5 * Math.sqrt(expected));
    }
  });

  it('of one adapter names it alone', () => {
    for (const kind of ['zipf', 'uniform'] as const)
      expect(traceOf(kind, 1, 3, new SeededRandom(1))).toEqual([0, 0, 0]);
  });
});

describe('comparing', () => {
  const before = report([
    line('same', 100),
    line('faster', 100),
    line('slower', 100),
    line('quicker', 100, { unit: 'µs', better: 'lower' }),
    line('once', 100, { samples: 1 }),
    line('gone', 1),
  ]);
  const after = report([
    line('same', 102),
    line('faster', 150),
    line('slower', 50),
    line('quicker', 50, { unit: 'µs', better: 'lower' }),
    line('once', 200, { samples: 1 }),
    line('new', 1),
  ]);

  it('tells what lies outside the spread, and which way', () => {
    const { lines, onlyBefore, onlyAfter } = compareReports(before, after, false);
    expect(Object.fromEntries(lines.map(({ name, ratio, change }) => [name, [ratio, change]]))).toEqual({
      same: [1.02, 'within the spread'],
      faster: [1.5, 'better'],
      slower: [0.5, 'worse'],
      quicker: [0.5, 'better'],
      once: [2, 'unknown'],
    });
    expect({ onlyBefore, onlyAfter }).toEqual({ onlyBefore: ['gone'], onlyAfter: ['new'] });
  });

  it('prints a table, or JSON', async () => {
    const files = [saved('before.json', before), saved('after.json', after)] as const;
    const { code, stdout } = await runCli(['bench', '--compare', ...files]);
    expect(code).toBe(0);
    expect(stdout).toMatch(/faster +100 +150 +tokens\/s +1\.500 +better/);
    const json = JSON.parse((await runCli(['bench', '--compare', ...files, '--json'])).stdout) as Comparison;
    expect(json).toMatchObject({ schema: 'openlora-bench-comparison/1', differences: [] });
    expect(json.lines).toHaveLength(5);
  });

  it('refuses other machines and sizes, says which differ, and does it with --force', async () => {
    const machine = { ...after.machine, cpu: 'another', threads: 4 };
    const other = saved('other.json', { ...after, machine, sizes: { model: 'tiny', batch: '1,32' } });
    const files = ['bench', '--compare', saved('before.json', before), other];
    const { code, stderr } = await runCli(files);
    expect({ code, stderr }).toEqual({ code: 1, stderr: expect.stringContaining('[ERR_BENCH_COMPARE]') });
    for (const text of ["and 'another'", "threads is '2' and '4'", "batch is '1,8' and '1,32'"])
      expect(stderr).toContain(text);
    const forced = await runCli([...files, '--force']);
    expect(forced.code).toBe(0);
    expect(forced.stdout).toContain('different: cpu');
  });

  it('refuses results without a common line even then', async () => {
    const other = saved('other.json', report([line('x', 1)]));
    const { code, stderr } = await runCli(['bench', '--compare', saved('before.json', before), other, '--force']);
    expect({ code, stderr }).toEqual({ code: 1, stderr: expect.stringContaining('no line in common') });
  });

  it('refuses what is no result', async () => {
    const right = saved('before.json', before);
    for (const [content, message] of [
      ['nonsense', 'is no JSON'],
      ['{"schema": "x"}', 'is no report of openlora bench'],
    ] as const) {
      const { code, stderr } = await runCli(['bench', '--compare', right, saved('bad.json', content)]);
      expect({ code, stderr }).toEqual({ code: 1, stderr: expect.stringContaining('[ERR_BENCH_REPORT]') });
      expect(stderr).toContain(message);
    }
    const { stderr } = await runCli(['bench', '--compare', right, join(folder, 'missing.json')]);
    expect(stderr).toContain('[ENOENT]');
  });
});

/** Elements that are closed as they were opened, and quoted attributes; what HTML may leave open isn't left open here. */
function tagsOf(html: string): string[] {
  const [doctype, rest] = [html.slice(0, 15), html.slice(15)];
  expect(doctype).toBe('<!doctype html>');
  const open: string[] = [];
  const names: string[] = [];
  const text = rest.replace(/<(\/?)([a-z0-9]+)((?: [a-zA-Z0-9-]+="[^"<]*")*)(\/?)>/g, (_, end, name, __, isEmpty) => {
    if (end) expect(open.pop()).toBe(name);
    else if (!isEmpty) open.push(name as string);
    names.push(name as string);
    return '';
  });
  expect(open).toEqual([]);
  expect(text).not.toMatch(/[<>]|&(?!(amp|lt|gt|quot);)/);
  return names;
}

describe('a page', () => {
  const odd = 'a <b> & "c" \u0007';
  const whole = report([
    line(odd, 10, { limits, retention: 0.9 }),
    line('load', 120, { unit: 'ms', better: 'lower', samples: 1 }),
  ]);
  const pages: [string, string][] = [
    ['a result', reportPage(whole)],
    ['a comparison', comparisonPage(compareReports(whole, report([line(odd, 20, { limits })]), true))],
  ];

  it.each(pages)('of %s is well-formed, and has a plot', (_, html) => {
    const names = tagsOf(html);
    for (const name of ['svg', 'rect', 'table', 'h1']) expect(names).toContain(name);
    expect(html).toContain('a &lt;b&gt; &amp; &quot;c&quot;');
  });

  it.each(pages)('of %s stands by itself', (_, html) => {
    expect(html).not.toMatch(/<(script|link|img|iframe|object)|\bsrc=|href=|url\(|@import|https?:/);
  });

  it('has a plot for each group of lines, and one for each unit of the others', () => {
    const html = reportPage(report([line('a', 1, { plot: 'first token', unit: 'ms' }), line('b', 1), line('c', 2)]));
    expect([...html.matchAll(/<h2>(.*?)<\/h2>/g)].map(([, title]) => title)).toEqual([
      'first token, ms',
      'tokens/s',
      'Numbers',
    ]);
  });

  it('that can not be written is refused before anything is measured', async () => {
    const path = join(folder, 'missing', 'page.html');
    const { code, stdout, stderr } = await runCli(['bench', 'machine', '--html', path]);
    expect({ code, stdout, stderr }).toEqual({ code: 1, stdout: '', stderr: expect.stringContaining('[ENOENT]') });
  });

  it('is written by --html', async () => {
    const path = join(folder, 'page.html');
    const files = [saved('one.json', whole), saved('two.json', whole)];
    expect(await runCli(['bench', '--compare', ...files, '--html', path])).toMatchObject({ code: 0 });
    expect(tagsOf(readFileSync(path, 'utf8'))).toContain('svg');
  });
});
