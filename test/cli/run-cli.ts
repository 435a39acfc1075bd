// Runs a command line in this process, with streams that remember.

import { Readable, Writable } from 'node:stream';
import { Output, type Io } from '../../src/cli/io.js';
import { run } from '../../src/cli/run.js';

export interface CliRun {
  code: number;
  stdout: string;
  stderr: string;
}

export interface CliOptions {
  env?: NodeJS.ProcessEnv;
  stdin?: string | Readable;
  /** Gets what stdout has so far, each time that there is more. */
  onOutput?: (stdout: string) => void;
  /** Makes stdout and stderr terminals of this width. */
  columns?: number;
  signal?: AbortSignal;
}

class Memory extends Writable {
  text = '';
  readonly isTTY: boolean;
  readonly columns: number | undefined;
  readonly rows = 24;

  constructor(
    columns: number | undefined,
    private readonly onText: (text: string) => void = () => undefined,
  ) {
    super();
    this.isTTY = columns !== undefined;
    this.columns = columns;
  }

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.text += chunk.toString();
    this.onText(this.text);
    done();
  }
}

export async function runCli(args: string[], options: CliOptions = {}): Promise<CliRun> {
  const [out, err] = [new Memory(options.columns, options.onOutput), new Memory(options.columns)];
  const env = options.env ?? {};
  const io: Io = {
    stdin: typeof options.stdin === 'object' ? options.stdin : Readable.from(options.stdin ? [options.stdin] : []),
    stdout: new Output(out as never, env),
    stderr: new Output(err as never, env),
    env,
    signal: options.signal ?? new AbortController().signal,
  };
  const code = await run(args, io);
  return { code, stdout: out.text, stderr: err.text };
}
