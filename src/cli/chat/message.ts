// A message out of lines: one line, or several where a line ends with a backslash or stands between two `"""`.

const FENCE = '"""';

export class Message {
  #parts: string[] = [];
  #isFenced = false;

  /** Whether more lines are to come. */
  get isOpen(): boolean {
    return this.#isFenced || this.#parts.length > 0;
  }

  /** Takes a line; returns the message if that was its last one, and is empty again. */
  add(line: string): string | undefined {
    if (!this.isOpen && line.trimStart().startsWith(FENCE)) {
      this.#isFenced = true;
      return this.#addFenced(line.trimStart().slice(FENCE.length));
    }
    if (this.#isFenced) return this.#addFenced(line);
    // Two backslashes are the end of a path.
    const goesOn = /(^|[^\\])\\$/.test(line);
    this.#parts.push(goesOn ? line.slice(0, -1) : line);
    return goesOn ? undefined : this.end();
  }

  /** What there is of it. */
  end(): string {
    const text = this.#parts.join('\n').trim();
    this.#parts = [];
    this.#isFenced = false;
    return text;
  }

  #addFenced(line: string): string | undefined {
    const isLast = line.trimEnd().endsWith(FENCE);
    this.#parts.push(isLast ? line.trimEnd().slice(0, -FENCE.length) : line);
    return isLast ? this.end() : undefined;
  }
}
