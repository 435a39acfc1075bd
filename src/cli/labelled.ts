// Several answers at once: growing blocks on a terminal, whole lines with their label elsewhere.

import type { Output } from './io.js';
import { LiveRegion } from './live.js';
import { pad, printable, widthOf, wrap } from './text.js';

const FRAME_MS = 50;

export class LabelledOutput {
  readonly #texts: string[];
  /** Characters of each text that have been printed (off a terminal). */
  readonly #printed: number[];
  readonly #live: LiveRegion | undefined;
  readonly #labelWidth: number;
  #timer: NodeJS.Timeout | undefined;

  constructor(
    private readonly output: Output,
    private readonly labels: string[],
  ) {
    this.#texts = labels.map(() => '');
    this.#printed = labels.map(() => 0);
    this.#labelWidth = Math.max(...labels.map(widthOf));
    if (output.isTty) this.#live = new LiveRegion(output);
  }

  push(i: number, text: string): void {
    this.#texts[i] += printable(text);
    if (this.#live) this.#timer ??= setTimeout(() => this.#draw(), FRAME_MS);
    else {
      const end = this.#texts[i]!.lastIndexOf('\n') + 1;
      if (end > this.#printed[i]!) this.#printLines(i, end);
    }
  }

  end(i: number): void {
    const length = this.#texts[i]!.length;
    if (!this.#live && (length > this.#printed[i]! || length === 0)) this.#printLines(i, length);
  }

  /** The whole answers, in the order of the labels, stay on the terminal. */
  close(): void {
    clearTimeout(this.#timer);
    if (!this.#live) return;
    this.#live.draw(
      [],
      this.labels.flatMap((_, i) => this.#block(i)),
    );
    this.#live.close();
  }

  #draw(): void {
    this.#timer = undefined;
    // Each block shows its end, so that all of them fit.
    const rows = Math.max(1, Math.floor(this.#live!.rowsMax / this.labels.length));
    this.#live!.draw(this.labels.flatMap((_, i) => this.#block(i, rows)));
  }

  #block(i: number, rowsMax = Infinity): string[] {
    const lines = wrap(this.#texts[i]!.replace(/\n+$/, ''), Math.max(20, this.output.columns - this.#labelWidth - 3));
    const shown = lines.length > rowsMax ? lines.slice(-rowsMax) : lines;
    return shown.map((line, at) => `${this.#label(at === 0 ? this.labels[i]! : '')}${line}`);
  }

  #label(label: string): string {
    const { style } = this.output;
    return `${style.cyan(pad(label, this.#labelWidth))} ${style.dim('│')} `;
  }

  #printLines(i: number, end: number): void {
    const text = this.#texts[i]!.slice(this.#printed[i], end);
    this.#printed[i] = end;
    for (const line of text.replace(/\n$/, '').split('\n')) this.output.line(this.#label(this.labels[i]!) + line);
  }
}
