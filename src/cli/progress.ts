// One progress bar on stderr, only where stderr is a terminal.

import type { Output } from './io.js';
import { cut, formatBytes, formatMs, pad, widthOf } from './text.js';

const FRAME_MS = 80;
const RATE_WINDOW_MS = 3_000;
const BAR_COLUMNS_MAX = 30;

export class ProgressBar {
  #drawnAt = 0;
  #isDrawn = false;
  readonly #samples: { at: number; done: number }[] = [];

  constructor(
    private readonly output: Output,
    /** Whether the numbers are bytes that arrive, with a rate and the time left. */
    private readonly hasRate = false,
  ) {}

  update(label: string, done: number, total: number): void {
    if (!this.output.isTty) return;
    const now = performance.now();
    if (this.#isDrawn && now - this.#drawnAt < FRAME_MS && done < total) return;
    this.#drawnAt = now;
    this.#isDrawn = true;
    this.output.write(`\r${this.#line(label, done, total, now)}\u001b[K`);
  }

  /** Erases the bar. */
  clear(): void {
    if (this.#isDrawn) this.output.write('\r\u001b[K');
    this.#isDrawn = false;
  }

  #line(label: string, done: number, total: number, now: number): string {
    const { style, columns } = this.output;
    const share = total > 0 ? Math.min(1, done / total) : 0;
    let tail = ` ${pad(`${Math.floor(share * 100)}`, 3, 'right')} %`;
    if (total > 0) tail += `  ${formatBytes(done)} of ${formatBytes(total)}`;
    if (this.hasRate) tail += this.#rate(done, total, now);
    const labelColumns = Math.max(8, Math.min(32, columns - tail.length - 14));
    const barColumns = Math.max(0, Math.min(BAR_COLUMNS_MAX, columns - labelColumns - widthOf(tail) - 3));
    const filled = Math.round(share * barColumns);
    const bar = style.cyan('━'.repeat(filled)) + style.dim('━'.repeat(barColumns - filled));
    return `${pad(cut(label, labelColumns), labelColumns)} ${bar}${tail}`;
  }

  #rate(done: number, total: number, now: number): string {
    this.#samples.push({ at: now, done });
    while (this.#samples.length > 2 && now - this.#samples[0]!.at > RATE_WINDOW_MS) this.#samples.shift();
    const first = this.#samples[0]!;
    const perMs = (done - first.done) / Math.max(1, now - first.at);
    if (!(perMs > 0)) return '';
    return `  ${formatBytes(perMs * 1000)}/s  ${formatMs(Math.max(0, total - done) / perMs)}`;
  }
}
