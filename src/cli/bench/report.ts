// What every bench writes with --json, and what --compare and --html read: docs/bench.md describes it.

import { readFileSync } from 'node:fs';
import { CliError } from '../errors.js';

export const SCHEMA = 'openlora-bench/1';
export const BENCHES = ['machine', 'ops', 'decode', 'prefill', 'adapters'] as const;
export type BenchName = (typeof BENCHES)[number];

/** What the median of a line can be. */
export type Unit = 'GB/s' | 'GOP/s' | 'µs' | 'tokens/s' | 'ms' | 'MiB' | 'KiB' | '%';

/** The machine's limits, measured between the repeats of a line. */
export interface LineLimits {
  /** Of a GPU: of copies within its memory, read and written. */
  readGbs: number;
  /** Of the instruction that computes, in GOP/s; of a GPU it isn't measured. */
  peakGops?: number;
  peak?: string;
  /** What one run or one step reads and computes. */
  bytes: number;
  operations: number;
  /** The time that the limits allow over the time taken: 1 is the limit. */
  ofLimit: number;
}

export interface Line {
  /** Of one report, no two are alike. */
  name: string;
  unit: Unit;
  /** Which way is better. */
  better: 'higher' | 'lower';
  median: number;
  /** The spread: 10 % and 90 % of many samples, the least and the most of few. */
  low: number;
  high: number;
  samples: number;
  limits?: LineLimits;
  /** Over the same without adapters, of the same run; of `adapters` over the same requests with all adapters resident. */
  retention?: number;
  /** Lines of one plot have the same; default: the unit. */
  plot?: string;
  /** ‖result - reference‖ / ‖reference‖, and what it may be. */
  error?: number;
  errorMax?: number;
}

export interface Machine {
  cpu: string;
  threads: number;
  simd: string;
  lastLevelCacheBytes: number;
  memoryBytes: number;
  platform: string;
}

export interface BenchReport {
  schema: typeof SCHEMA;
  bench: BenchName;
  command: string;
  date: string;
  versions: { openlora: string; node: string };
  /** Of the last minute when it began: above the number of threads, the machine was shared. */
  loadAverage: number;
  isQuick: boolean;
  machine: Machine;
  /** What was measured: numbers of reports whose sizes differ can't be compared. */
  sizes: Record<string, string | number>;
  lines: Line[];
}

/** All but the numbers. */
export type ReportHead = Omit<BenchReport, 'lines'>;

export function medianOf(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const [low, high] = [sorted[(sorted.length - 1) >> 1]!, sorted[sorted.length >> 1]!];
  return (low + high) / 2;
}

/** Of what was measured by turns, run by run: the median of the ratios, which bad minutes of a machine change least. */
export function medianRatio(some: readonly number[], others: readonly number[]): number {
  return medianOf(some.map((value, i) => value / others[i]!));
}

/** The least of the values that so many of all don't exceed. */
export function quantileOf(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.max(0, Math.ceil(share * sorted.length) - 1))]!;
}

const PARTS = 5;
const PART_SAMPLES_MIN = 4;

/** A quantile of samples in the order in which they came; the spread is that of the quantiles of five parts of them. */
export function quantileSummary(
  values: readonly number[],
  share: number,
): Pick<Line, 'median' | 'low' | 'high' | 'samples'> {
  const parts = values.length < PARTS * PART_SAMPLES_MIN ? 1 : PARTS;
  const bound = (part: number) => Math.round((part * values.length) / parts);
  const of = Array.from({ length: parts }, (_, i) => quantileOf(values.slice(bound(i), bound(i + 1)), share));
  const median = quantileOf(values, share);
  return { median, low: Math.min(median, ...of), high: Math.max(median, ...of), samples: values.length };
}

/** Median and whole spread of a few repeats. */
export function summary(values: readonly number[]): Pick<Line, 'median' | 'low' | 'high' | 'samples'> {
  return {
    median: medianOf(values),
    low: Math.min(...values),
    high: Math.max(...values),
    samples: values.length,
  };
}

const ALLOWED: Readonly<Record<string, unknown[]>> = {
  schema: [SCHEMA],
  bench: [...BENCHES],
  unit: ['GB/s', 'GOP/s', 'µs', 'tokens/s', 'ms', 'MiB', 'KiB', '%'],
  better: ['higher', 'lower'],
};
const REPORT_TYPES = {
  schema: 'string',
  bench: 'string',
  command: 'string',
  date: 'string',
  versions: 'object',
  loadAverage: 'number',
  isQuick: 'boolean',
  machine: 'object',
  sizes: 'object',
  lines: 'object',
} as const;
const MACHINE_TYPES = {
  cpu: 'string',
  threads: 'number',
  simd: 'string',
  lastLevelCacheBytes: 'number',
  memoryBytes: 'number',
  platform: 'string',
} as const;
const LINE_TYPES = {
  name: 'string',
  unit: 'string',
  better: 'string',
  median: 'number',
  low: 'number',
  high: 'number',
  samples: 'number',
} as const;
const PEAK_TYPES = { peakGops: 'number', peak: 'string' } as const;
const LIMIT_TYPES = {
  readGbs: 'number',
  bytes: 'number',
  operations: 'number',
  ofLimit: 'number',
} as const;

/** What is wrong with a value that should be a report; undefined for nothing. */
export function reportFault(value: unknown): string | undefined {
  const report = value as BenchReport;
  const fault = typeFault('the report', value, REPORT_TYPES);
  if (fault) return fault;
  if (!Array.isArray(report.lines)) return 'lines is no array';
  const names = new Set<string>();
  for (const line of report.lines) {
    const inLine =
      typeFault('a line', line, LINE_TYPES) ??
      (line.limits === undefined ? undefined : typeFault(`limits of '${line.name}'`, line.limits, LIMIT_TYPES)) ??
      (line.limits?.peak === undefined ? undefined : typeFault(`limits of '${line.name}'`, line.limits, PEAK_TYPES));
    if (inLine) return inLine;
    if (names.has(line.name)) return `two lines are called '${line.name}'`;
    names.add(line.name);
  }
  const isPlain = (size: unknown) => typeof size === 'string' || typeof size === 'number';
  if (!Object.values(report.sizes).every(isPlain)) return 'sizes holds something else than text and numbers';
  return typeFault('machine', report.machine, MACHINE_TYPES);
}

function typeFault(where: string, value: unknown, types: Readonly<Record<string, string>>): string | undefined {
  if (typeof value !== 'object' || value === null) return `${where} is no object`;
  for (const [key, type] of Object.entries(types)) {
    const got = (value as Record<string, unknown>)[key];
    if (typeof got !== type || got === null || (type === 'number' && !Number.isFinite(got)))
      return `${key} of ${where} is no ${type}`;
    const allowed = ALLOWED[key];
    if (allowed && !allowed.includes(got))
      return `${key} of ${where} is ${JSON.stringify(got)}, wanted one of ${allowed.join(', ')}`;
  }
  return undefined;
}

/** Throws ERR_BENCH_REPORT, or what the system says. */
export function readReport(path: string): BenchReport {
  let value: unknown;
  try {
    value = JSON.parse(readFileSync(path, 'utf8'));
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    throw new CliError('ERR_BENCH_REPORT', `${path} is no JSON: ${error.message}`);
  }
  const fault = reportFault(value);
  if (fault) throw new CliError('ERR_BENCH_REPORT', `${path} is no report of openlora bench: ${fault}`);
  return value as BenchReport;
}
