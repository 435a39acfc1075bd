// What the demo says when all answers are there.

import type { Output } from '../io.js';
import { cut, formatBytes, formatCount, formatMs, oneLine, table, wrap } from '../text.js';
import { memoryRows, type MemoryComparison } from './memory.js';
import type { DemoRow, Served } from './serve.js';
import type { DemoAdapter } from './tasks.js';

const FACT_INDENT = 16;
const WRONG_SHOWN = 5;
const WRONG_COLUMNS = 50;

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
  wrong: DemoRow[];
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
    wrong: rows.filter(({ state }) => state !== 'right'),
  };
}

export function printSummary(output: Output, summary: DemoSummary): void {
  output.line();
  printScore(output, summary);
  output.line();
  printAdapters(output, summary.adapters);
  output.line();
  const { style } = output;
  const fact = (name: string, value: string, explanation?: string) => {
    output.line(`  ${style.dim(name.padEnd(FACT_INDENT - 2))}${value}`);
    if (explanation) note(output, explanation, FACT_INDENT);
  };
  const rate = style.strong(`${formatCount(summary.tokensPerSecond)} tokens/s`);
  fact(
    'speed',
    `${rate}: ${formatCount(summary.tokensOut)} tokens in ${formatMs(summary.wallMs)}, all requests together`,
  );
  fact('first token', `${formatMs(summary.ttftMs.median)} in the median, ${formatMs(summary.ttftMs.max)} at most`);
  fact(
    'steps',
    `${formatCount(summary.steps)} of ${summary.rowsPerStep.toFixed(1)} rows: each one forward pass for all requests`,
  );
  fact(
    'weights read',
    `${formatBytes(summary.weightBytesPerStep)} a step: each base weight once, whatever the rows`,
    `of the ${formatBytes(summary.weightBytes)} that the base holds; of an embedding, only the rows that are looked up`,
  );
}

function printScore(output: Output, { right, requests, expectedAtLeast, wrong }: DemoSummary): void {
  const { style } = output;
  const sign = right >= expectedAtLeast ? style.green('✓') : style.red('✗');
  output.line(`${sign} ${style.bold(`${right} of ${requests} answers right`)}`);
  note(
    output,
    `expected: at least ${expectedAtLeast}, what transformers + peft reaches less three standard deviations`,
    2,
  );
  for (const row of wrong.slice(0, WRONG_SHOWN)) {
    const short = (text: string) => cut(oneLine(text), WRONG_COLUMNS);
    const end = row.finishReason === undefined || row.finishReason === 'eos' ? '' : ` (ended by ${row.finishReason})`;
    const got = row.error === undefined ? short(row.answer) + end : oneLine(row.error);
    const what = `${row.adapter}: ${short(row.prompt)} gave ${got}, wanted ${short(row.wanted)}`;
    wrap(what, Math.min(output.columns, 100) - 4).forEach((line, i) =>
      output.line((i === 0 ? `  ${style.red('✗')} ` : '    ') + line),
    );
  }
  if (wrong.length > WRONG_SHOWN) output.line(`  … and ${wrong.length - WRONG_SHOWN} more`);
}

function printAdapters(output: Output, scores: AdapterScore[]): void {
  const { style } = output;
  const rows = scores.map(({ adapter, title, rank, sites, bytes, right, requests }) => [
    `  ${adapter}`,
    title,
    rank.min === rank.max ? `${rank.min}` : `${rank.min}–${rank.max}`,
    `${sites}`,
    formatBytes(bytes),
    right === requests ? `${right} of ${requests}` : style.red(`${right} of ${requests}`),
  ]);
  const numbers = ['rank', 'sites', 'bytes', 'right'].map((title) => ({ title, align: 'right' as const }));
  for (const line of table([{ title: '  adapter' }, { title: 'what it does' }, ...numbers], rows, style.dim))
    output.line(line);
}

export function printMemory(output: Output, memory: MemoryComparison): void {
  output.line();
  const numbers = ['model bytes', 'RSS growth'].map((title) => ({ title, align: 'right' as const }));
  const rows = memoryRows(memory).map(([name, ...cells]) => [`  ${name}`, ...cells]);
  for (const line of table([{ title: '  memory' }, ...numbers], rows, output.style.dim)) output.line(line);
  note(
    output,
    'Measured: both were loaded and used, each in a process of its own. RSS growth has threads and tokenizers in it, which outweigh a model as small as this; model bytes are what the engine counts.',
    2,
  );
}

/** An explanation, wrapped and indented. */
function note(output: Output, text: string, indent: number): void {
  const width = Math.min(output.columns, 100) - indent;
  for (const line of wrap(text, width)) output.line(' '.repeat(indent) + output.style.dim(line));
}
