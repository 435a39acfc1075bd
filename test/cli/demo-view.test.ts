// What the demo draws, cell by cell, from rows whose numbers are known.

import { Writable } from 'node:stream';
import { stripVTControlCharacters } from 'node:util';
import { describe, expect, it } from 'vitest';
import { printMemory } from '../../src/cli/demo/report.js';
import { rowsOf, type DemoRow } from '../../src/cli/demo/serve.js';
import { LiveTable, plainTable } from '../../src/cli/demo/view.js';
import { Output } from '../../src/cli/io.js';
import { makeStyle } from '../../src/cli/style.js';

class Terminal extends Writable {
  readonly isTTY = true;
  readonly columns = 100;
  readonly rows = 24;
  text = '';

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.text += chunk.toString();
    done();
  }

  /** The lines that were drawn last, and all that stayed above them. */
  get lines(): string[] {
    return this.text.split('\n').map((line) => stripVTControlCharacters(line).replaceAll('\r', '').trimEnd());
  }
}

const open = () => {
  const terminal = new Terminal();
  return { terminal, output: new Output(terminal, { NO_COLOR: '1' }) };
};

/** Three requests: one right, one wrong, one that failed. */
const waiting = () =>
  rowsOf([
    { adapter: 'reverse', prompt: 'orange>', wanted: 'egnaro' },
    { adapter: 'upper', prompt: 'lemon>', wanted: 'LEMON' },
    { adapter: 'sql', prompt: 'get name>', wanted: 'SELECT name;' },
  ]);
function answer(rows: DemoRow[]): void {
  Object.assign(rows[0]!, { answer: 'egnaro', state: 'right', tokens: 7, ttftMs: 12.4, tokensPerSecond: 345.6 });
  Object.assign(rows[1]!, { answer: 'LEMUR', state: 'wrong', tokens: 1, ttftMs: 1500 });
  Object.assign(rows[2]!, { state: 'failed', error: 'out of luck' });
}
const CELLS = [
  /^\s*reverse\s+orange>\s+✓ +egnaro\s+12 ms\s+346$/,
  /^\s*upper\s+lemon>\s+✗ +LEMUR\s+1\.5 s$/,
  /^\s*sql\s+get name>\s+! +out of luck$/,
];

describe('the table of the demo', () => {
  it('has for each request its adapter, answer, mark, time to the first token and tokens/s when it is over', async () => {
    const { terminal, output } = open();
    const rows = waiting();
    const table = new LiveTable(output, rows, { isPaced: false, signal: new AbortController().signal });
    const [head, ...first] = terminal.lines;
    expect(head).toMatch(/^\s*adapter\s+prompt\s+answer\s+first\s+tokens\/s$/);
    expect(first.filter((line) => /^\s*(reverse|upper|sql)\s+\S.*>\s+·$/.test(line))).toHaveLength(3);
    expect(first.at(-2)).toMatch(/^\s*0 right, 3 waiting$/);

    answer(rows);
    await table.finish('done');
    for (const cells of CELLS) expect(terminal.lines.filter((line) => cells.test(line)).length).toBeGreaterThan(0);
    expect(terminal.lines.some((line) => /^\s*1 right, 2 wrong\s+done$/.test(line))).toBe(true);
    // What stays on the terminal has the same cells: the last rows that were drawn.
    const last = terminal.lines.filter((line) => line !== '').slice(-3);
    last.forEach((line, i) => expect(line).toMatch(CELLS[i]!));
  });

  it('shows what has arrived of an answer, without numbers that are not known yet', async () => {
    const { terminal, output } = open();
    const rows = waiting();
    Object.assign(rows[0]!, { answer: 'egn', state: 'streaming', ttftMs: 3 });
    const table = new LiveTable(output, rows, { isPaced: false, signal: new AbortController().signal });
    expect(terminal.lines.filter((line) => /^\s*reverse\s+orange>\s+▪ egn$/.test(line))).toHaveLength(1);
    expect(terminal.lines.some((line) => /^\s*0 right, 1 streaming, 2 waiting$/.test(line))).toBe(true);
    table.abort();
  });

  it('has the same cells where it is printed at once', () => {
    const rows = waiting();
    answer(rows);
    const [head, ...lines] = plainTable(rows, makeStyle(false)).map((line) => line.trimEnd());
    expect(head).toMatch(/^adapter\s+prompt\s+answer\s+first\s+tokens\/s$/);
    expect(lines).toHaveLength(3);
    lines.forEach((line, i) => expect(line).toMatch(CELLS[i]!));
  });
});

it('the memory comparison says both sides, measured both ways, and how many times more', () => {
  const { terminal, output } = open();
  const MiB = 2 ** 20;
  printMemory(output, {
    shared: { modelBytes: 4 * MiB, rssGrowthBytes: 50 * MiB },
    copies: { modelBytes: 24 * MiB, rssGrowthBytes: 125 * MiB, count: 12 },
  });
  const [, head, shared, copies, times, ...note] = terminal.lines;
  expect(head).toMatch(/^\s*memory\s+model bytes\s+RSS growth$/);
  expect(shared).toMatch(/^\s*one base, 12 adapters\s+4\.00 MiB\s+50\.0 MiB$/);
  expect(copies).toMatch(/^\s*12 full models\s+24\.0 MiB\s+125 MiB$/);
  expect(times).toMatch(/^\s*6\.0 ×\s+2\.5 ×$/);
  expect(note.join(' ')).toContain('Measured: both were loaded and used');
});
