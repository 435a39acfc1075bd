// Two results side by side: what changed by more than the spread.

import { CliError } from '../errors.js';
import type { Output } from '../io.js';
import { oneLine, table } from '../text.js';
import type { BenchReport, Line, ReportHead, Unit } from './report.js';
import { formatNumber, formatSpread, headOf } from './view.js';

export const COMPARISON_SCHEMA = 'openlora-bench-comparison/1';

export interface ComparedLine {
  name: string;
  unit: Unit;
  before: Line;
  after: Line;
  /** Of the medians, after over before. */
  ratio: number;
  /** Each median lies outside the other's spread; `unknown` where a line was measured once. */
  change: 'better' | 'worse' | 'within the spread' | 'unknown';
}

export interface Comparison {
  schema: typeof COMPARISON_SCHEMA;
  before: ReportHead;
  after: ReportHead;
  /** In machine or sizes; not empty only with --force. */
  differences: string[];
  lines: ComparedLine[];
  /** Lines of one result alone. */
  onlyBefore: string[];
  onlyAfter: string[];
}

/** Throws ERR_BENCH_COMPARE for results of different machines or sizes, unless forced, or without a common line. */
export function compareReports(before: BenchReport, after: BenchReport, isForced: boolean): Comparison {
  const differences = differencesOf(before, after);
  if (differences.length > 0 && !isForced) {
    const message = `the results can't be compared: ${differences.join('; ')}`;
    throw new CliError('ERR_BENCH_COMPARE', message);
  }
  const later = new Map(after.lines.map((line) => [line.name, line]));
  const lines = before.lines.flatMap((line) => {
    const other = later.get(line.name);
    return other && other.unit === line.unit ? [compareLines(line, other)] : [];
  });
  if (lines.length === 0)
    throw new CliError('ERR_BENCH_COMPARE', 'the results have no line in common', 'two results of the same bench');
  const common = new Set(lines.map(({ name }) => name));
  const alone = ({ lines: all }: BenchReport) => all.map(({ name }) => name).filter((name) => !common.has(name));
  return {
    schema: COMPARISON_SCHEMA,
    before: headerOf(before),
    after: headerOf(after),
    differences,
    lines,
    onlyBefore: alone(before),
    onlyAfter: alone(after),
  };
}

function headerOf({ lines: _, ...rest }: BenchReport): ReportHead {
  return rest;
}

function differencesOf(before: BenchReport, after: BenchReport): string[] {
  const comparable = ({ bench, isQuick, machine, sizes }: BenchReport): Record<string, string | number | boolean> => ({
    bench,
    quick: isQuick,
    cpu: machine.cpu,
    threads: machine.threads,
    simd: machine.simd,
    'last-level cache': machine.lastLevelCacheBytes,
    platform: machine.platform,
    ...sizes,
  });
  const [one, other] = [comparable(before), comparable(after)];
  const keys = [...new Set([...Object.keys(one), ...Object.keys(other)])];
  const show = (value: string | number | boolean | undefined) => (value === undefined ? 'nothing' : `'${value}'`);
  return keys
    .filter((key) => one[key] !== other[key])
    .map((key) => `${key} is ${show(one[key])} and ${show(other[key])}`);
}

function compareLines(before: Line, after: Line): ComparedLine {
  const isOutside = (value: number, { low, high }: Line) => value < low || value > high;
  const isGain = after.median > before.median === (before.better === 'higher');
  let change: ComparedLine['change'] = 'within the spread';
  if (Math.min(before.samples, after.samples) < 2) change = 'unknown';
  else if (isOutside(after.median, before) && isOutside(before.median, after)) change = isGain ? 'better' : 'worse';
  return { name: before.name, unit: before.unit, before, after, ratio: after.median / before.median, change };
}

export function printComparison(comparison: Comparison, output: Output): void {
  const { style } = output;
  const { before, after, differences, lines } = comparison;
  const head = (name: string, report: ReportHead) =>
    output.line(style.dim(`${name}  ${report.date}  ${oneLine(report.command)}`));
  output.line(style.dim(headOf(before)));
  if (differences.length > 0) output.line(style.yellow(`different: ${oneLine(differences.join('; '))}`));
  head('before', before);
  head('after ', after);
  output.line();
  const paint = { better: style.green, worse: style.red, 'within the spread': style.dim, unknown: style.dim };
  const word = { better: 'better', worse: 'worse', 'within the spread': '', unknown: 'measured once' };
  const rows = lines.map(({ name, unit, before: one, after: other, ratio, change }) => [
    oneLine(name),
    formatNumber(one.median),
    formatNumber(other.median),
    unit,
    style.strong(ratio.toFixed(3)),
    paint[change](word[change]),
    `${formatSpread(one)} → ${formatSpread(other)}`.replace(/^ → $/, ''),
  ]);
  const right = { align: 'right' } as const;
  const columns = [
    { title: before.bench },
    { title: 'before', ...right },
    { title: 'after', ...right },
    { title: '' },
    { title: 'after/before', ...right },
    { title: '' },
    { title: 'spread' },
  ];
  for (const text of table(columns, rows, style.dim)) output.line(text);
  for (const name of comparison.onlyBefore) output.line(style.dim(`only before: ${oneLine(name)}`));
  for (const name of comparison.onlyAfter) output.line(style.dim(`only after: ${oneLine(name)}`));
}
