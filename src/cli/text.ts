// Numbers, columns and widths as people read them.

import { homedir } from 'node:os';
import { relative } from 'node:path';
import { stripVTControlCharacters } from 'node:util';

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];

/** `1.7 MiB`: three digits, binary units. */
export function formatBytes(bytes: number): string {
  let value = Math.abs(bytes);
  let unit = 0;
  while (value >= 1023.5 && unit < UNITS.length - 1) {
    value /= 1024;
    unit++;
  }
  const digits = unit === 0 || value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
  return `${bytes < 0 ? '-' : ''}${value.toFixed(digits)} ${UNITS[unit]}`;
}

/** `1,234,567` */
export function formatCount(count: number): string {
  return Math.round(count).toLocaleString('en-US');
}

/** `853 K`, `1.24 B`: of parameters. */
export function formatShort(count: number): string {
  for (const [size, unit] of [
    [1e9, 'B'],
    [1e6, 'M'],
    [1e3, 'K'],
  ] as const) {
    if (count >= size) return `${(count / size).toPrecision(3)} ${unit}`;
  }
  return String(count);
}

/** `12 ms`, `1.3 s`, `2 min 05 s` */
export function formatMs(ms: number): string {
  if (ms < 9.95) return `${ms.toFixed(1)} ms`;
  if (ms < 999.5) return `${ms.toFixed(0)} ms`;
  if (ms < 59_950) return `${(ms / 1000).toFixed(1)} s`;
  const seconds = Math.round(ms / 1000);
  return `${Math.floor(seconds / 60)} min ${String(seconds % 60).padStart(2, '0')} s`;
}

const WIDE =
  /[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6\u{1f300}-\u{1faff}\u{20000}-\u{3fffd}]/u;
const MARK = /\p{M}|\u200d|\ufe0f/u;

function charWidth(char: string): number {
  return MARK.test(char) ? 0 : WIDE.test(char) ? 2 : 1;
}

/** Terminal columns that a text takes; escape sequences take none. */
export function widthOf(text: string): number {
  let width = 0;
  for (const char of stripVTControlCharacters(text)) width += charWidth(char);
  return width;
}

/** One line of plain text: what a model writes must not move the cursor. */
export function oneLine(text: string): string {
  return stripVTControlCharacters(text)
    .replace(/\r?\n/g, '↵')
    .replace(/\t/g, ' ')
    .replace(/\p{Cc}/gu, '·');
}

/** What a model writes, without what a terminal would obey: only line ends and tabs stay. */
export function printable(text: string): string {
  return text.replace(/(?![\n\t])\p{Cc}/gu, '�');
}

/** A path from here where that is shorter, from the home folder with `~`. */
export function shortPath(path: string): string {
  const home = homedir();
  const fromHome = path.startsWith(`${home}/`) ? `~${path.slice(home.length)}` : path;
  const fromHere = relative(process.cwd(), path) || '.';
  return oneLine(fromHere.length < fromHome.length ? fromHere : fromHome);
}

/** Cuts plain text to `width` columns, with `…` where something is missing. */
export function cut(text: string, width: number): string {
  if (widthOf(text) <= width) return text;
  let out = '';
  let used = 0;
  for (const char of text) {
    if (used + charWidth(char) > width - 1) break;
    out += char;
    used += charWidth(char);
  }
  return width > 0 ? `${out}…` : '';
}

/** Fills up to `width` columns; styled text may be given. */
export function pad(text: string, width: number, align: 'left' | 'right' = 'left'): string {
  const space = ' '.repeat(Math.max(0, width - widthOf(text)));
  return align === 'left' ? text + space : space + text;
}

/** Breaks plain text at spaces into lines of at most `width` columns; words longer than a line are split. */
export function wrap(text: string, width: number): string[] {
  const lines: string[] = [];
  for (const paragraph of text.split('\n')) {
    let line = '';
    for (let word of paragraph.split(' ')) {
      while (widthOf(word) > width) {
        if (line !== '') lines.push(line);
        line = '';
        const head = cut(word, width + 1).slice(0, -1) || [...word][0]!;
        lines.push(head);
        word = word.slice(head.length);
      }
      const joined = line === '' ? word : `${line} ${word}`;
      if (widthOf(joined) <= width) line = joined;
      else {
        lines.push(line);
        line = word;
      }
    }
    lines.push(line);
  }
  return lines;
}

export interface Column {
  title: string;
  align?: 'left' | 'right';
}

/** A table of plain or styled cells, two spaces between columns. */
export function table(columns: Column[], rows: string[][], title: (text: string) => string = (text) => text): string[] {
  const widths = columns.map((column, i) =>
    Math.max(widthOf(column.title), ...rows.map((row) => widthOf(row[i] ?? ''))),
  );
  const line = (cells: string[]) =>
    columns
      .map((column, i) => pad(cells[i] ?? '', widths[i]!, column.align))
      .join('  ')
      .trimEnd();
  return [line(columns.map((column) => title(column.title))), ...rows.map(line)];
}

/** Edit distance with transpositions, of the short words of a command line. */
export function editDistance(a: string, b: string): number {
  const rows: number[][] = [Array.from({ length: b.length + 1 }, (_, j) => j)];
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const cost = a[i - 1] === b[j - 1] ? 0 : 1;
      let best = Math.min(rows[i - 1]![j]! + 1, row[j - 1]! + 1, rows[i - 1]![j - 1]! + cost);
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1])
        best = Math.min(best, rows[i - 2]![j - 2]! + 1);
      row.push(best);
    }
    rows.push(row);
  }
  return rows[a.length]![b.length]!;
}

/** The known word that was probably meant. */
export function nearest(word: string, known: readonly string[]): string | undefined {
  let best: string | undefined;
  let bestDistance = Math.max(1, Math.floor(word.length / 3)) + 1;
  for (const candidate of known) {
    const distance = candidate.startsWith(word) && word.length >= 2 ? 0.5 : editDistance(word, candidate);
    if (distance < bestDistance) [best, bestDistance] = [candidate, distance];
  }
  return best;
}
