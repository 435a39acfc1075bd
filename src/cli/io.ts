// What a command sees of the world: streams, environment, interruption. Tests give their own.

import type { Readable, Writable } from 'node:stream';
import { makeStyle, wantsColour, type Style } from './style.js';

/** A stream, and what is known of its terminal. */
export class Output {
  readonly style: Style;
  readonly isTty: boolean;
  #isClosed = false;

  constructor(
    readonly stream: Writable & { isTTY?: boolean; columns?: number; rows?: number },
    env: NodeJS.ProcessEnv,
  ) {
    this.isTty = stream.isTTY === true && env.TERM !== 'dumb';
    this.style = makeStyle(wantsColour(env, this.isTty));
    stream.on('error', () => (this.#isClosed = true));
  }

  get columns(): number {
    return this.stream.columns || 80;
  }

  get rows(): number {
    return this.stream.rows || 24;
  }

  write(text: string): void {
    if (!this.#isClosed && text !== '') this.stream.write(text);
  }

  line(text = ''): void {
    this.write(`${text}\n`);
  }

  /** Resolves when everything written has been handed to the operating system. */
  async flush(): Promise<void> {
    if (this.#isClosed) return;
    await new Promise<void>((resolve) => this.stream.write('', () => resolve()));
  }
}

export interface Io {
  readonly stdin: Readable & { isTTY?: boolean };
  readonly stdout: Output;
  readonly stderr: Output;
  readonly env: NodeJS.ProcessEnv;
  /** Aborted by Ctrl-C, SIGTERM, and by a reader of stdout that went away. */
  readonly signal: AbortSignal;
}

export function json(io: Io, value: unknown): void {
  io.stdout.line(JSON.stringify(value, null, 2));
}
