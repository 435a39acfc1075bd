// Messages from a terminal or a pipe. What is pasted is one line here, whatever it holds.

import { createInterface, type Interface, type Key } from 'node:readline';
import { Writable } from 'node:stream';
import type { Io, Output } from '../io.js';
import type { History } from './history.js';
import { Message } from './message.js';

// Terminals mark what is pasted while this is on: https://invisible-island.net/xterm/ctlseqs, "Bracketed Paste Mode".
const PASTE_ON = '\u001b[?2004h';
const PASTE_OFF = '\u001b[?2004l';

interface ReaderOptions {
  history: History | undefined;
  /** As Readline wants it: what the end of the line can become, and that end. */
  complete: (line: string) => [candidates: string[], end: string];
  /** Ctrl-C while nothing is read. */
  onInterrupt: () => void;
}

type Event = { line: string } | 'interrupted' | 'ended';

export class LineReader {
  readonly #lines: Interface;
  readonly #gate: Gate | undefined;
  readonly #events: Event[] = [];
  #wake: (() => void) | undefined;
  #isReading = false;
  #isPasting = false;
  #pasted: string[] = [];
  #interrupts = 0;
  readonly #restore = () => this.io.stdout.write(PASTE_OFF);

  constructor(
    private readonly io: Io,
    private readonly isTty: boolean,
    private readonly options: ReaderOptions,
  ) {
    this.#gate = isTty ? new Gate(io.stdout) : undefined;
    this.#lines = createInterface({
      input: io.stdin,
      ...(this.#gate
        ? {
            output: this.#gate,
            terminal: true,
            history: [...(options.history?.lines ?? [])],
            removeHistoryDuplicates: true,
            completer: options.complete,
          }
        : {}),
      crlfDelay: Infinity,
    });
    this.#lines.on('line', (line) => this.#take(line));
    this.#lines.on('close', () => this.#push('ended'));
    if (!isTty) return;
    this.#lines.on('SIGINT', () => this.#interrupt());
    io.stdin.on('keypress', this.#onKey);
    io.stdout.write(PASTE_ON);
    process.once('exit', this.#restore);
  }

  /** The next message, trimmed; undefined at the end of the input. */
  async read(prompt: string): Promise<string | undefined> {
    const message = new Message();
    for (;;) {
      const event = await this.#next(message.isOpen ? this.io.stdout.style.dim('… ') : prompt);
      if (event === 'interrupted') message.end();
      // A pipe that ends in the middle of a message has said all of it.
      else if (event === 'ended') return (this.isTty ? '' : message.end()) || undefined;
      else {
        const text = message.add(event.line);
        if (text) return text;
      }
    }
  }

  close(): void {
    this.#lines.close();
    if (!this.isTty) return;
    this.io.stdin.off('keypress', this.#onKey);
    process.off('exit', this.#restore);
    this.#restore();
  }

  /** While nothing is read, keys are kept and not shown: they would stand in the middle of an answer. */
  async #next(prompt: string): Promise<Event> {
    if (this.#events.length === 0) {
      this.#isReading = true;
      if (this.#gate) {
        this.#gate.isOpen = true;
        this.#lines.setPrompt(prompt);
        this.#lines.prompt(true);
      }
      await new Promise<void>((resolve) => (this.#wake = resolve));
      this.#isReading = false;
      if (this.#gate) this.#gate.isOpen = false;
    } else if (this.isTty && typeof this.#events[0] === 'object') {
      this.io.stdout.line(`${prompt}${this.#events[0].line}`);
    }
    // The end stays: whoever asks again is told again.
    if (this.#events[0] !== 'ended') return this.#events.shift()!;
    if (this.isTty) this.io.stdout.line();
    return 'ended';
  }

  #push(event: Event): void {
    this.#events.push(event);
    this.#wake?.();
    this.#wake = undefined;
  }

  #take(line: string): void {
    this.#interrupts = 0;
    if (this.#isPasting) {
      this.#pasted.push(line);
      return;
    }
    const whole = [...this.#pasted, line].join('\n');
    this.#pasted = [];
    this.options.history?.add(whole);
    this.#push({ line: whole });
  }

  /** Ctrl-C ends an answer; at the prompt it throws the line away, and on an empty line the second one leaves. */
  #interrupt(): void {
    if (!this.#isReading) {
      this.#events.length = 0;
      return this.options.onInterrupt();
    }
    const { stdout } = this.io;
    const isEmpty = this.#lines.line === '' && this.#pasted.length === 0;
    this.#pasted = [];
    this.#interrupts = isEmpty ? this.#interrupts + 1 : 0;
    if (this.#interrupts > 1) return this.#lines.close();
    // The line, from the cursor to both ends.
    this.#lines.write(null, { ctrl: true, name: 'e' });
    this.#lines.write(null, { ctrl: true, name: 'u' });
    stdout.line(isEmpty ? stdout.style.dim('\nCtrl-D or /exit leaves') : '');
    this.#push('interrupted');
  }

  readonly #onKey = (_: unknown, key: Key | undefined): void => {
    if (key?.name === 'paste-start') this.#isPasting = true;
    if (key?.name === 'paste-end') this.#isPasting = false;
  };
}

/** Where Readline draws; what it draws while the gate is closed is lost. */
class Gate extends Writable {
  readonly isTTY = true;
  isOpen = false;

  constructor(private readonly output: Output) {
    super();
    output.stream.on('resize', () => this.emit('resize'));
  }

  get columns(): number {
    return this.output.columns;
  }

  get rows(): number {
    return this.output.rows;
  }

  override _write(chunk: Buffer | string, _encoding: string, done: () => void): void {
    if (this.isOpen) this.output.write(chunk.toString());
    done();
  }
}
