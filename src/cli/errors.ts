// Errors as the command line shows them: what, got, wanted, and the next thing to try.

import { OpenLoraError } from '../errors.js';
import { hintOf, type Place } from './hints.js';
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

export interface ErrorReport {
  code: string;
  message: string;
  /** The next thing to try. */
  hint: string;
}

export function reportOf(error: unknown, place: Place = {}): ErrorReport {
  const report = (code: string, message: string, hint?: string) => ({
    code,
    message,
    hint: hint ?? hintOf(code, place),
  });
  if (error instanceof UsageError) return report('ERR_USAGE', error.message, error.hint);
  if (error instanceof CliError) return report(error.code, error.message, error.hint);
  if (OpenLoraError.is(error)) {
    return report(error.code, error.message, hintOf(error.code, { option: error.details.option, ...place }));
  }
  if (error instanceof Error) {
    const { code } = error as NodeJS.ErrnoException;
    return report(typeof code === 'string' ? code : 'ERR_UNEXPECTED', error.message);
  }
  return report('ERR_UNEXPECTED', String(error));
}

/** Runs `action`; a coded error of the SDK leaves it with a hint that names the folders of `place`. */
export async function placed<T>(place: Place, action: () => Promise<T>): Promise<T> {
  try {
    return await action();
  } catch (error) {
    if (!OpenLoraError.is(error)) throw error;
    const { code, message, hint } = reportOf(error, place);
    throw new CliError(code, message, hint);
  }
}

export function printError(output: Output, report: ErrorReport): void {
  const { style } = output;
  const code = report.code === 'ERR_USAGE' ? '' : style.dim(` [${report.code}]`);
  output.line(`${style.red('error:')} ${printable(report.message)}${code}`);
  output.line(`${style.dim('  try:')} ${report.hint}`);
}
