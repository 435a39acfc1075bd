// Errors as the command line shows them: what, got, wanted, and the next thing to try.

import { OpenLoraError } from '../errors.js';
import type { Output } from './io.js';
import { printable } from './text.js';

export const EXIT_OK = 0;
export const EXIT_FAILURE = 1;
export const EXIT_USAGE = 2;
export const EXIT_INTERRUPTED = 130;

/** The command line itself is wrong. */
export class UsageError extends Error {
  constructor(
    message: string,
    readonly hint?: string,
  ) {
    super(message);
    this.name = 'UsageError';
  }
}

/** The command line is right and it can't be done. */
export class CliError extends Error {
  constructor(
    readonly code: string,
    message: string,
    readonly hint?: string,
  ) {
    super(message);
    this.name = 'CliError';
  }
}

/** Ctrl-C, or the reader of stdout went away. */
export class Interrupted extends Error {
  constructor() {
    super('interrupted');
    this.name = 'Interrupted';
  }
}

export function throwIfInterrupted(signal: AbortSignal): void {
  if (signal.aborted) throw new Interrupted();
}

/** The next thing to try; the SDK's messages say what, got and wanted. */
const HINTS: Record<string, string> = {
  ERR_NATIVE_NOT_FOUND: 'run `openlora doctor` to see what was tried, `openlora build` to build it from source',
  ERR_CHAT_TEMPLATE_MISSING: 'this base continues text: use `openlora generate --prompt …`',
  ERR_TOKENIZER_MISSING: 'a base folder needs tokenizer.json beside its weights',
  ERR_ADAPTER_FILES: 'run `openlora inspect DIR` to see what the folder holds',
  ERR_ADAPTER_SHAPE: 'run `openlora inspect DIR --base BASE` to see whether the adapter is made for this base',
  ERR_OVERLOADED: 'fewer requests at once, or a larger limit',
  ERR_OUT_OF_MEMORY: 'run `openlora doctor` to see how much memory the process may use',
};

export interface ErrorReport {
  code: string;
  message: string;
  hint?: string;
}

export function reportOf(error: unknown): ErrorReport {
  const withHint = (code: string, message: string, hint: string | undefined) =>
    hint === undefined ? { code, message } : { code, message, hint };
  if (error instanceof UsageError) return withHint('ERR_USAGE', error.message, error.hint);
  if (error instanceof CliError) return withHint(error.code, error.message, error.hint);
  if (OpenLoraError.is(error)) return withHint(error.code, error.message, HINTS[error.code]);
  if (error instanceof Error) {
    const { code } = error as NodeJS.ErrnoException;
    return { code: typeof code === 'string' ? code : 'ERR_UNEXPECTED', message: error.message };
  }
  return { code: 'ERR_UNEXPECTED', message: String(error) };
}

export function printError(output: Output, report: ErrorReport): void {
  const { style } = output;
  const code = report.code === 'ERR_USAGE' ? '' : style.dim(` [${report.code}]`);
  output.line(`${style.red('error:')} ${printable(report.message)}${code}`);
  if (report.hint !== undefined) output.line(`${style.dim('  try:')} ${report.hint}`);
}
