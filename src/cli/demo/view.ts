// The table of the demo: drawn live on a terminal, printed once elsewhere.

import type { Output } from '../io.js';
import { LiveRegion } from '../live.js';
import type { Style } from '../style.js';
import { cut, formatMs, oneLine, pad, table, widthOf } from '../text.js';
import type { DemoRow } from './serve.js';

const FRAME_MS = 33;
/** Of an answer, for the eye; more where the eye would wait longer than this once all answers are there. */
const CHARS_PER_FRAME = 0.6;
const CATCH_UP_MS = 3_000;
/** Lines around the rows: title, blank, strip, counts. */
const LINES_AROUND = 5;

const isDone = ({ state }: DemoRow) => state === 'right' || state === 'wrong' || state === 'failed';

export interface ViewOptions {
  /** Slows answers down for the eye; numbers stay the true ones. */
  isPaced: boolean;
  signal: AbortSignal;
}

/** Draws `rows` while others fill them. `finish` resolves when all that is shown is all there is. */
export class LiveTable {
  readonly #live: LiveRegion;
  readonly #columns: RowColumns;
  readonly #shown: number[];
  readonly #timer: NodeJS.Timeout;
  /** Rows that have left the region for the scrollback. */
  #settled = 0;
  #resolve: (() => void) | undefined;
  #note = '';
  #charsPerFrame = CHARS_PER_FRAME;

  constructor(
    private readonly output: Output,
    private readonly rows: DemoRow[],
    private readonly options: ViewOptions,
  ) {
    this.#live = new LiveRegion(output);
    this.#columns = rowColumns(rows, output.columns);
    this.#shown = rows.map(() => 0);
    output.line(output.style.dim(header(this.#columns)));
    this.#timer = setInterval(() => this.#frame(), FRAME_MS);
    this.#frame();
  }

  /** Leaves every row on the terminal, and no region. `note` is shown while the eye catches up. */
  async finish(note = ''): Promise<void> {
    this.#note = note;
    const longest = Math.max(...this.rows.map((row, i) => row.answer.length - this.#shown[i]!));
    this.#charsPerFrame = Math.max(CHARS_PER_FRAME, (longest * FRAME_MS) / CATCH_UP_MS);
    await new Promise<void>((resolve) => (this.#resolve = resolve));
    clearInterval(this.#timer);
    this.#live.draw(
      [],
      this.rows.slice(this.#settled).map((row, i) => this.#row(row, this.#settled + i)),
    );
    this.#live.close();
  }

  /** Takes the region away in mid-stream. */
  abort(): void {
    clearInterval(this.#timer);
    this.#live.clear();
    this.#live.close();
  }

  #isShown(i: number): boolean {
    return isDone(this.rows[i]!) && this.#shown[i]! >= this.rows[i]!.answer.length;
  }

  #frame(): void {
    this.rows.forEach((row, i) => {
      const next = this.options.isPaced ? this.#shown[i]! + this.#charsPerFrame : Infinity;
      this.#shown[i] = Math.min(row.answer.length, next);
    });
    const height = Math.max(1, this.#live.rowsMax - LINES_AROUND);
    const above: string[] = [];
    // Rows leave at the top, in order, once they and all before them are complete and others wait below for a place.
    while (this.rows.length - this.#settled > height && this.#isShown(this.#settled)) {
      above.push(this.#row(this.rows[this.#settled]!, this.#settled));
      this.#settled++;
    }
    const visible = this.rows
      .slice(this.#settled, this.#settled + height)
      .map((row, i) => this.#row(row, this.#settled + i));
    const below = this.rows.length - this.#settled - visible.length;
    const more = below > 0 ? [this.output.style.dim(`  … and ${below} more below`)] : [];
    this.#live.draw([...visible, ...more, '', ...this.#strip()], above);
    if (this.options.signal.aborted || this.rows.every((_, i) => this.#isShown(i))) this.#resolve?.();
  }

  #row(row: DemoRow, i: number): string {
    const isShown = this.#isShown(i);
    const text = row.answer.slice(0, Math.floor(this.#shown[i]!));
    return rowLine(
      { ...row, answer: text, state: isShown ? row.state : text === '' ? 'waiting' : 'streaming' },
      this.#columns,
      this.output.style,
    );
  }

  /** One cell for each request, so that all of them are seen whatever the terminal's height. */
  #strip(): string[] {
    const { style } = this.output;
    const shown = this.rows.map((row, i) =>
      this.#isShown(i) ? row.state : this.#shown[i]! > 0 ? 'streaming' : 'waiting',
    );
    const cells = shown.map((state) => MARKS[state](style));
    const width = Math.max(16, Math.min(64, this.output.columns - 2));
    const lines: string[] = [];
    for (let i = 0; i < cells.length; i += width) lines.push(`  ${cells.slice(i, i + width).join('')}`);
    const count = (wanted: string) => shown.filter((state) => state === wanted).length;
    const wrong = count('wrong') + count('failed');
    const parts = [
      `${count('right')} right`,
      ...(wrong > 0 ? [style.red(`${wrong} wrong`)] : []),
      ...['streaming', 'waiting'].filter((state) => count(state) > 0).map((state) => `${count(state)} ${state}`),
    ];
    return [...lines, `  ${parts.join(', ')}${style.dim(this.#note && `  ${this.#note}`)}`];
  }
}

const MARKS: Record<DemoRow['state'], (style: Style) => string> = {
  waiting: (style) => style.dim('·'),
  streaming: (style) => style.cyan('▪'),
  right: (style) => style.green('✓'),
  wrong: (style) => style.red('✗'),
  failed: (style) => style.red('!'),
};

interface RowColumns {
  adapter: number;
  prompt: number;
  answer: number;
}

const TTFT = 7;
const RATE = 8;
const GAP = '  ';
const PLAIN_ANSWER_COLUMNS = 80;

function rowColumns(rows: DemoRow[], columns: number): RowColumns {
  const longest = (texts: string[]) => Math.max(6, ...texts.map((text) => widthOf(oneLine(text))));
  const adapter = Math.min(14, longest(rows.map((row) => row.adapter)));
  const rest = Math.max(20, Math.min(columns, 140) - adapter - TTFT - RATE - 5 * GAP.length - 3);
  const prompt = Math.min(longest(rows.map((row) => row.prompt)), Math.floor(rest * 0.38));
  const answer = Math.min(longest(rows.map((row) => row.wanted)), rest - prompt);
  return { adapter, prompt, answer };
}

function header(columns: RowColumns): string {
  const cells = [
    pad('adapter', columns.adapter),
    pad('prompt', columns.prompt),
    `  ${pad('answer', columns.answer)}`,
    pad('first', TTFT, 'right'),
    pad('tokens/s', RATE, 'right'),
  ];
  return GAP + cells.join(GAP);
}

function rowLine(row: DemoRow, columns: RowColumns, style: Style): string {
  const isOver = isDone(row);
  const answer = cut(row.state === 'failed' ? (row.error ?? '') : oneLine(row.answer), columns.answer);
  const paint =
    row.state === 'wrong' || row.state === 'failed' ? style.red : isOver ? style.bold : (text: string) => text;
  return (
    GAP +
    [
      style.cyan(pad(cut(row.adapter, columns.adapter), columns.adapter)),
      pad(cut(oneLine(row.prompt), columns.prompt), columns.prompt),
      `${MARKS[row.state](style)} ${pad(paint(answer), columns.answer)}`,
      style.dim(pad(isOver && row.ttftMs !== undefined ? formatMs(row.ttftMs) : '', TTFT, 'right')),
      style.dim(pad(isOver && row.tokensPerSecond !== undefined ? row.tokensPerSecond.toFixed(0) : '', RATE, 'right')),
    ].join(GAP)
  );
}

/** The whole table at once. */
export function plainTable(rows: DemoRow[], style: Style): string[] {
  return table(
    [
      { title: 'adapter' },
      { title: 'prompt' },
      { title: '' },
      { title: 'answer' },
      { title: 'first', align: 'right' },
      { title: 'tokens/s', align: 'right' },
    ],
    rows.map((row) => [
      row.adapter,
      oneLine(row.prompt),
      MARKS[row.state](style),
      cut(oneLine(row.state === 'failed' ? (row.error ?? '') : row.answer), PLAIN_ANSWER_COLUMNS),
      row.ttftMs === undefined ? '' : formatMs(row.ttftMs),
      row.tokensPerSecond?.toFixed(0) ?? '',
    ]),
    style.dim,
  );
}
