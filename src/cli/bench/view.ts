// Reports as tables on a terminal, and the line on stderr that says what is being measured.

import type { Output } from '../io.js';
import { cut, formatBytes, formatCount, oneLine, table, widthOf, type Column } from '../text.js';
import type { BenchReport, Line, ReportHead } from './report.js';

const NAME_COLUMNS_MIN = 24;

/** `1,235`, `52.1`, `0.97`: three digits or more. */
export function formatNumber(value: number): string {
  const size = Math.abs(value);
  if (size >= 99.95) return formatCount(value);
  return value.toFixed(size >= 9.995 ? 1 : 2);
}

export const formatShare = (share: number): string => `${(100 * share).toFixed(0)} %`;

/** `52.1–60.4` */
export const formatSpread = ({ low, high, samples }: Line): string =>
  samples < 2 ? '' : `${formatNumber(low)}–${formatNumber(high)}`;

/** One line of what was measured on, for people. */
export function headOf({ machine, loadAverage }: Pick<ReportHead, 'machine' | 'loadAverage'>): string {
  const { cpu, threads, simd, lastLevelCacheBytes } = machine;
  if (threads === 0) return `${oneLine(simd)}, ${oneLine(cpu)}, load average ${loadAverage.toFixed(1)}`; // a GPU
  const count = threads === 1 ? '1 thread' : `${threads} threads`;
  const cache = `last-level cache ${formatBytes(lastLevelCacheBytes)}`;
  return `${oneLine(cpu)}, ${count}, ${simd}, ${cache}, load average ${loadAverage.toFixed(1)}`;
}

export function sizesOf({ sizes }: Pick<ReportHead, 'sizes'>): string {
  return Object.entries(sizes)
    .filter(([, value]) => value !== '')
    .map(([name, value]) => `${name} ${oneLine(String(value))}`)
    .join(', ');
}

export function printReport(report: BenchReport, output: Output): void {
  const { style } = output;
  output.line(style.dim(headOf(report)));
  if (Object.keys(report.sizes).length > 0) output.line(style.dim(sizesOf(report)));
  output.line();
  const has = (key: 'limits' | 'retention' | 'error') => report.lines.some((line) => line[key] !== undefined);
  const columns = [
    { title: report.bench, cell: (line: Line) => oneLine(line.name), isText: true },
    { title: 'median', cell: (line: Line) => style.strong(formatNumber(line.median)) },
    { title: '', cell: ({ unit }: Line) => unit, isText: true },
    { title: 'spread', cell: formatSpread },
    ...(has('limits') ? limitColumns : []),
    ...(has('retention')
      ? [{ title: 'of base', cell: ({ retention }: Line) => (retention === undefined ? '' : formatShare(retention)) }]
      : []),
    ...(has('error') ? [{ title: 'error', cell: ({ error }: Line) => error?.toExponential(0) ?? '' }] : []),
  ];
  const shape = columns.map(({ title, isText }) => ({ title, align: isText ? ('left' as const) : ('right' as const) }));
  const rows = report.lines.map((line) => columns.map(({ cell }) => cell(line)));
  if (output.isTty) shorten(shape, rows, output.columns);
  for (const text of table(shape, rows, style.dim)) output.line(text);
}

/** Cuts the names where a line would not fit the terminal. */
function shorten(shape: readonly Column[], rows: string[][], columns: number): void {
  const rest = table(
    shape.slice(1),
    rows.map((row) => row.slice(1)),
  );
  const room = Math.max(NAME_COLUMNS_MIN, columns - 3 - Math.max(...rest.map(widthOf)));
  for (const row of rows) row[0] = cut(row[0]!, room);
}

interface ViewColumn {
  title: string;
  cell: (line: Line) => string;
  isText?: boolean;
}

const limitColumns: ViewColumn[] = [
  { title: 'of limit', cell: ({ limits }) => (limits ? formatShare(limits.ofLimit) : '') },
  { title: 'read GB/s', cell: ({ limits }) => (limits ? formatNumber(limits.readGbs) : '') },
  { title: 'peak GOP/s', cell: ({ limits }) => (limits?.peakGops === undefined ? '' : formatNumber(limits.peakGops)) },
];

/** What is being done, on stderr, only where that is a terminal. */
export class StatusLine {
  #isDrawn = false;

  constructor(private readonly output: Output) {}

  update(text: string): void {
    if (!this.output.isTty) return;
    this.#isDrawn = true;
    this.output.write(`\r${this.output.style.dim(cut(oneLine(text), this.output.columns - 1))}\u001b[K`);
  }

  clear(): void {
    if (this.#isDrawn) this.output.write('\r\u001b[K');
    this.#isDrawn = false;
  }
}
