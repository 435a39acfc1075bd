// The goals of test/long/adapters.test.ts, found in reports of `openlora bench adapters`.

import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { readReport, type BenchReport, type Line } from '../../src/cli/bench/report.js';
import { bestOf, goalsOf, missedOf } from '../long/adapters-goals.js';

const results = fileURLToPath(new URL('../../bench/results/', import.meta.url));
const kept = readdirSync(results).filter((name) => name.startsWith('adapters-'));

const QUIET = 'next token of others p99, quiet';
type Changes = Record<string, number>;

/** Every goal is met just so, but for `changes` of medians, or of retentions where a line has one, by the ends of names. */
function reportOf(changes: Changes = {}, many = '1,000'): BenchReport {
  const report = readReport(join(results, 'adapters-10000-qwen2.5-0.5b-int8-zen4.json'));
  const line = (name: string, median: number): Line => {
    const hasRetention = /, (zipf|base alone|base alone on a third)$/.test(name);
    const end = Object.keys(changes).find((key) => name.endsWith(key));
    const value = end === undefined ? median : changes[end]!;
    const of = hasRetention ? { median: 100, retention: value } : { median: value };
    return { name, unit: 'ms', better: 'lower', low: 0, high: 0, samples: 1, ...of };
  };
  const of = (name: string, median: number) => line(`${many} registered, ${name}`, median);
  const lines = [
    line('10 registered, zipf', 0.1),
    of('registering the 10th', 10),
    of('registering the last', 11),
    of('zipf', many === '1,000' ? 0.97 : 0.92),
    of('uniform', 80),
    of(QUIET, 20),
    of('next token of others p99, loads from host memory', 22),
    of('next token of others p99, first packing', 30),
    of(`${QUIET} again`, 19),
    of('first token beside others p99, first packing', 1000),
    of('base alone', 0.98),
    of('base alone on another', 100),
    of('base alone on a third', 0.99),
    ...[10, 29, 80, 200, 500].map((ms, i) => line(`${2 ** (i - 1)} × the 16 that fit, first token p99`, ms)),
  ];
  return { ...report, sizes: { registered: `10,${many.replace(',', '')}` }, lines };
}

describe('the goals of thousands of adapters', () => {
  it('are numbers of the most that were registered', () => {
    const shown = Object.entries(goalsOf(reportOf())).map(([what, { value, goal }]) => [what, value, goal]);
    expect(shown).toEqual([
      ['registering the 10th, over the last', 10 / 11, 1 / 1.1],
      ['zipf, of all resident', 0.97, 0.97],
      ['uniform, over zipf', 0.8, 0.8],
      [`${QUIET} over loads from host memory`, 20 / 22, 1 / 1.1],
      [`${QUIET} over first packing`, 20 / 30, 1 / 1.5],
      [`${QUIET} over quiet again`, 20 / 19, undefined],
      ['first token p99, 0.5 × over 1 × those that fit', 10 / 29, 1 / 3],
      ['first token p99, 1 × over 2 × those that fit', 29 / 80, 1 / 3],
      ['first token p99, 2 × over 4 × those that fit', 80 / 200, 1 / 3],
      ['first token p99, 4 × over 8 × those that fit', 200 / 500, 1 / 3],
      ['base alone, of the base without adapters', 0.98, 0.98],
      ['base alone, one without adapters over another', 0.99, undefined],
    ]);
    expect(goalsOf(reportOf({}, '10,000'))['zipf, of all resident']).toEqual({ value: 0.92, goal: 0.92 });
  });

  it.each<[string, Changes]>([
    ['registering the 10th, over the last', { 'registering the last': 13 }],
    ['zipf, of all resident', { '1,000 registered, zipf': 0.87 }],
    ['uniform, over zipf', { uniform: 71 }],
    [`${QUIET} over loads from host memory`, { 'loads from host memory': 25 }],
    [`${QUIET} over first packing`, { 'next token of others p99, first packing': 34 }],
    ['first token p99, 2 × over 4 × those that fit', { '4 × the 16 that fit, first token p99': 270 }],
    ['first token p99, 4 × over 8 × those that fit', { '8 × the 16 that fit, first token p99': 670 }],
    ['base alone, of the base without adapters', { 'registered, base alone': 0.88 }],
  ])('are met within 10 %, or missed: %s', (what, changes) => {
    expect(missedOf(goalsOf(reportOf()))).toEqual([]);
    expect(missedOf(goalsOf(reportOf(changes)))).toEqual([expect.stringContaining(`${what}: `)]);
  });

  it('are not taken for met where a line is missing', () => {
    const report = reportOf();
    const without = (end: string) => ({ ...report, lines: report.lines.filter(({ name }) => !name.endsWith(end)) });
    for (const { name } of report.lines.slice(1).filter((line) => !/beside others|on another/.test(line.name)))
      expect(() => goalsOf(without(name)), name).toThrow(/^no /);
    const none = report.lines.map(({ retention: _, ...line }) => line);
    expect(() => goalsOf({ ...report, lines: none })).toThrow('has no retention');
  });

  it('are those of the better run, number by number', () => {
    const one = { a: { value: 1, goal: 2 }, b: { value: 3, goal: 2 }, c: { value: 1 } };
    const other = { a: { value: 2, goal: 2 }, b: { value: 1, goal: 2 }, c: { value: 2 } };
    expect(bestOf(one, other)).toEqual({ a: { value: 2, goal: 2 }, b: { value: 3, goal: 2 }, c: { value: 2 } });
    expect(missedOf(bestOf(one, other))).toEqual([]);
  });

  it.each(kept)('are all found in %s', (name) => {
    const report = readReport(join(results, name));
    const quiet = report.lines.find((line) => line.name.endsWith(QUIET))!;
    // Reports of before the second quiet kind: as if it were the first one.
    const lines = [...report.lines, { ...quiet, name: `${quiet.name} again` }];
    const found = goalsOf({ ...report, lines });
    expect(Object.keys(found)).toHaveLength(12);
    for (const [what, { value }] of Object.entries(found)) expect(value, what).toBeGreaterThan(0);
  });
});
