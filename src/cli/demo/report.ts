// What the demo says when all answers are there.

import type { Output } from '../io.js';
import { formatBytes, formatCount, formatMs, table } from '../text.js';
import { memoryRows, type MemoryComparison } from './memory.js';
import type { DemoRow, Served } from './serve.js';
import type { DemoAdapter } from './tasks.js';

export interface AdapterScore {
  adapter: string;
  title: string;
  rank: { min: number; max: number };
  sites: number;
  bytes: number;
  right: number;
  requests: number;
}

export interface DemoSummary {
  right: number;
  requests: number;
  /** Fewer right answers are a failure: exit code 1. */
  expectedAtLeast: number;
  wallMs: number;
  tokensIn: number;
  tokensOut: number;
  /** Generated tokens of all requests, by the time from the first request to the last end. */
  tokensPerSecond: number;
  ttftMs: { median: number; max: number };
  steps: number;
  rowsPerStep: number;
  weightBytesRead: number;
  weightBytesPerStep: number;
  /** The base's weights in memory; an embedding's rows are looked up, so a step reads somewhat less. */
  weightBytes: number;
  loraBytesRead: number;
  adapters: AdapterScore[];
}

export function scoreOf(
  adapter: DemoAdapter,
  info: Pick<AdapterScore, 'rank' | 'bytes'> & { sites: string[] },
  rows: DemoRow[],
): AdapterScore {
  const own = rows.filter((row) => row.adapter === adapter.name);
  return {
    adapter: adapter.name,
    title: adapter.title,
    rank: info.rank,
    sites: info.sites.length,
    bytes: info.bytes,
    right: own.filter(({ state }) => state === 'right').length,
    requests: own.length,
  };
}

export function summarise(
  served: Served,
  adapters: AdapterScore[],
  weightBytes: number,
  expectedAtLeast: number,
): DemoSummary {
  const { rows, ...counted } = served;
  const ttfts = rows.flatMap(({ ttftMs }) => (ttftMs === undefined ? [] : [ttftMs])).sort((a, b) => a - b);
  return {
    right: rows.filter(({ state }) => state === 'right').length,
    requests: rows.length,
    expectedAtLeast,
    ...counted,
    tokensPerSecond: (served.tokensOut * 1000) / served.wallMs,
    ttftMs: { median: ttfts[Math.floor(ttfts.length / 2)] ?? 0, max: ttfts.at(-1) ?? 0 },
    weightBytesPerStep: served.steps > 0 ? served.weightBytesRead / served.steps : 0,
    weightBytes,
    adapters,
  };
}

export function printSummary(output: Output, summary: DemoSummary): void {
  const { style } = output;
  const isGood = summary.right >= summary.expectedAtLeast;
  const sign = isGood ? style.green('✓') : style.red('✗');
  output.line();
  output.line(
    `${sign} ${style.bold(`${summary.right} of ${summary.requests} answers right`)}${style.dim(`  (at least ${summary.expectedAtLeast} expected: what transformers + peft reaches, less three standard deviations)`)}`,
  );
  output.line();
  const scores = summary.adapters.map(({ adapter, title, rank, sites, bytes, right, requests }) => [
    `  ${adapter}`,
    title,
    rank.min === rank.max ? `${rank.min}` : `${rank.min}–${rank.max}`,
    `${sites}`,
    formatBytes(bytes),
    right === requests ? `${right} of ${requests}` : style.red(`${right} of ${requests}`),
  ]);
  const columns = [
    { title: '  adapter' },
    { title: 'what it does' },
    ...['rank', 'sites', 'bytes', 'right'].map((title) => ({ title, align: 'right' as const })),
  ];
  for (const line of table(columns, scores, style.dim)) output.line(line);
  output.line();
  const fact = (name: string, value: string, note = '') =>
    output.line(`  ${style.dim(name.padEnd(14))}${value}${note && style.dim(`  ${note}`)}`);
  fact(
    'speed',
    style.strong(`${formatCount(summary.tokensPerSecond)} tokens/s`),
    `${formatCount(summary.tokensOut)} tokens in ${formatMs(summary.wallMs)}, all requests together`,
  );
  fact('first token', `${formatMs(summary.ttftMs.median)} median, ${formatMs(summary.ttftMs.max)} at most`);
  fact(
    'steps',
    `${formatCount(summary.steps)} × ${summary.rowsPerStep.toFixed(1)} rows`,
    'one forward pass each, for every request at once',
  );
  fact(
    'weights read',
    `${formatBytes(summary.weightBytesPerStep)} a step`,
    `each base weight once, whatever the rows; the base holds ${formatBytes(summary.weightBytes)}`,
  );
}

export function printMemory(output: Output, memory: MemoryComparison): void {
  const { style } = output;
  output.line();
  const columns = [
    { title: '  memory' },
    ...['model bytes', 'RSS growth'].map((title) => ({ title, align: 'right' as const })),
  ];
  const rows = memoryRows(memory).map(([name, ...cells]) => [`  ${name}`, ...cells]);
  for (const line of table(columns, rows, style.dim)) output.line(line);
  output.line(
    style.dim('  Measured: both were loaded and used, each in a process of its own. RSS growth has threads and'),
  );
  output.line(
    style.dim('  tokenizers in it, which outweigh a model as small as this; model bytes are what the engine counts.'),
  );
}
