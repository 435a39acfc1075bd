#!/usr/bin/env node
// The process: streams, signals, exit code. Everything else is in run.ts.

import { EXIT_INTERRUPTED } from './errors.js';
import { Output, type Io } from './io.js';
import { run } from './run.js';

const interruption = new AbortController();
let isPipeClosed = false;

function interrupt(): void {
  // A second Ctrl-C doesn't wait for what the first one asked to end.
  if (interruption.signal.aborted) process.exit(EXIT_INTERRUPTED);
  interruption.abort();
}

// `openlora generate … | head`: the reader has what it wanted.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error;
  isPipeClosed = true;
  interruption.abort();
});
process.on('SIGINT', interrupt);
process.on('SIGTERM', interrupt);

const io: Io = {
  stdin: process.stdin,
  stdout: new Output(process.stdout, process.env),
  stderr: new Output(process.stderr, process.env),
  env: process.env,
  signal: interruption.signal,
};

const code = await run(process.argv.slice(2), io);
await Promise.all([io.stdout.flush(), io.stderr.flush()]);
process.exit(isPipeClosed ? 0 : code);
