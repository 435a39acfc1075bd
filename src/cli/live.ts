// A region at the end of the terminal that is drawn again and again, and lines that stay above it.

import type { Output } from './io.js';

const HIDE_CURSOR = '\u001b[?25l';
const SHOW_CURSOR = '\u001b[?25h';
const WRAP_OFF = '\u001b[?7l';
const WRAP_ON = '\u001b[?7h';
const CLEAR_LINE_END = '\u001b[K';
const CLEAR_BELOW = '\u001b[J';

export class LiveRegion {
  #height = 0;
  #isOpen = false;
  readonly #restore = () => this.close();

  constructor(private readonly output: Output) {}

  /** Lines that the region can have without scrolling itself away. */
  get rowsMax(): number {
    return Math.max(3, this.output.rows - 1);
  }

  /** Replaces the region by `lines`; `above` goes before it and stays. One write: no flicker. */
  draw(lines: string[], above: string[] = []): void {
    let text = '';
    if (!this.#isOpen) {
      this.#isOpen = true;
      process.once('exit', this.#restore);
      text += HIDE_CURSOR + WRAP_OFF;
    }
    text += this.#home();
    for (const line of [...above, ...lines.slice(0, this.rowsMax)]) text += `${line}${CLEAR_LINE_END}\n`;
    this.output.write(text + CLEAR_BELOW);
    this.#height = Math.min(lines.length, this.rowsMax);
  }

  /** Erases the region; what stayed above it stays. */
  clear(): void {
    if (this.#isOpen) this.output.write(this.#home() + CLEAR_BELOW);
    this.#height = 0;
  }

  /** Leaves the region as it is and gives the cursor back. */
  close(): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    this.#height = 0;
    process.off('exit', this.#restore);
    this.output.write(WRAP_ON + SHOW_CURSOR);
  }

  #home(): string {
    return this.#height > 0 ? `\u001b[${this.#height}A\r` : '\r';
  }
}
