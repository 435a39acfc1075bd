// Measurements of the addon, which run in a thread of its own.

import { dirname, join } from 'node:path';
import type { BenchEvent, BenchOptions } from '../../native/binding.js';
import { NativeLoadError, loadNative } from '../../native/load.js';
import { CliError, Interrupted, throwIfInterrupted } from '../errors.js';

export type BegunEvent = Extract<BenchEvent, { kind: 'begun' }>;
export type LimitEvent = Extract<BenchEvent, { kind: 'limit' }>;
export type OpEvent = Extract<BenchEvent, { kind: 'op' }>;

/** Resolves when it has ended. Throws Interrupted, or what the addon says. */
export async function measure(
  options: Omit<BenchOptions, 'cudaImages'>,
  signal: AbortSignal,
  onEvent: (event: Exclude<BenchEvent, { kind: 'ended' }>) => void,
): Promise<void> {
  throwIfInterrupted(signal);
  const { binding, path } = addon();
  const cudaImages = join(dirname(path), 'cuda_images');
  let stop: (() => void) | undefined;
  try {
    await new Promise<void>((resolve, reject) => {
      const cancel = binding.bench({ ...options, cudaImages }, (event) => {
        if (event.kind !== 'ended') onEvent(event);
        else if (event.code === '') resolve();
        else reject(signal.aborted ? new Interrupted() : new CliError(event.code, event.message));
      });
      stop = cancel;
      signal.addEventListener('abort', cancel);
    });
  } finally {
    if (stop) signal.removeEventListener('abort', stop);
  }
}

/** Throws ERR_NATIVE_NOT_FOUND. */
function addon() {
  try {
    return loadNative();
  } catch (error) {
    if (error instanceof NativeLoadError) throw new CliError(error.code, error.message);
    throw error;
  }
}

/** Whether the system was asked to forget what it holds of the file in memory. */
export const forgetPages = (path: string): boolean => addon().binding.forgetPages(path);

export interface MeasuredLimits {
  begun: BegunEvent;
  /** Reading first, then each instruction. */
  limits: LimitEvent[];
}

/** Of a GPU: that of copies within its memory, and nothing else. */
export async function measureLimits(
  threads: number,
  rounds: number,
  signal: AbortSignal,
  device = 'cpu',
): Promise<MeasuredLimits> {
  let begun: BegunEvent | undefined;
  const limits: LimitEvent[] = [];
  const options = { kind: 'limits', device, threads, simd: 'auto', rounds, isQuick: false, filter: '' } as const;
  await measure(options, signal, (event) => {
    if (event.kind === 'begun') begun = event;
    if (event.kind === 'limit') limits.push(event);
  });
  return { begun: begun!, limits };
}
