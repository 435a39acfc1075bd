// `openlora bench machine` and `ops`: what the addon measures by itself.

import type { SimdLevel } from '../../native/binding.js';
import { CliError, UsageError } from '../errors.js';
import { measure, measureLimits, type BegunEvent, type LimitEvent, type OpEvent } from './native.js';
import type { Line } from './report.js';

export interface Measured {
  begun: BegunEvent;
  sizes: Record<string, string | number>;
  lines: Line[];
}

/** Told of each line as it is done. */
export type OnLine = (line: Line) => void;

export interface NativeSettings {
  device: string;
  threads: number;
  simd: SimdLevel | 'auto';
  isQuick: boolean;
  filter: string;
}

const ROUNDS = 30;
const ROUNDS_QUICK = 3;
const BURSTS = 3; // of an instruction in each round

/** Each limit of one thread and of all of them. */
export async function benchMachine(settings: NativeSettings, signal: AbortSignal, onLine: OnLine): Promise<Measured> {
  const rounds = settings.isQuick ? ROUNDS_QUICK : ROUNDS;
  const all = await measureLimits(settings.threads, rounds, signal, settings.device);
  const { threads } = all.begun;
  const one = threads <= 1 ? undefined : await measureLimits(1, rounds, signal);
  const lines = [
    ...all.limits.map((limit) => limitLine(limit, threads, rounds)),
    ...(one?.limits ?? []).map((limit) => limitLine(limit, 1, rounds)),
  ];
  lines.forEach(onLine);
  return { begun: all.begun, sizes: {}, lines };
}

function limitLine({ name, unit, median, low, high }: LimitEvent, threads: number, rounds: number): Line {
  return {
    name:
      threads === 0
        ? `${name}, within the GPU's memory`
        : `${name}, ${threads === 1 ? '1 thread' : `${threads} threads`}`,
    unit: unit === 'GB/s' ? 'GB/s' : 'GOP/s',
    better: 'higher',
    ...{ median, low, high },
    samples: name === 'read' || name === 'copy' ? rounds : BURSTS * rounds,
  };
}

/** Every op case; ERR_BENCH_WRONG if one differs from the reference. */
export async function benchOps(settings: NativeSettings, signal: AbortSignal, onLine: OnLine): Promise<Measured> {
  let begun: BegunEvent | undefined;
  const lines: Line[] = [];
  const wrong: string[] = [];
  await measure({ kind: 'ops', rounds: 1, ...settings }, signal, (event) => {
    if (event.kind === 'begun') begun = event;
    if (event.kind !== 'op') return;
    const line = opLine(event);
    if (!(event.error <= event.errorMax)) wrong.push(`${line.name} (${event.error}, at most ${event.errorMax})`);
    lines.push(line);
    onLine(line);
  });
  if (wrong.length > 0)
    throw new CliError('ERR_BENCH_WRONG', `results differ from the reference more than they may: ${wrong.join('; ')}`);
  if (lines.length === 0)
    throw new UsageError(`--filter is '${settings.filter}', which is in no case's name`, 'openlora bench ops --quick');
  return { begun: begun!, sizes: { filter: settings.filter, cases: lines.length }, lines };
}

function opLine(event: OpEvent): Line {
  const { bytes, operations, usMedian, readGbs, peak, peakGops } = event;
  const ofLimit = Math.max(bytes / readGbs, operations / peakGops) / 1e3 / usMedian;
  return {
    name: `${event.op} ${event.what}`,
    unit: 'µs',
    better: 'lower',
    ...{ median: usMedian, low: event.usLow, high: event.usHigh, samples: event.samples },
    limits: { readGbs, peakGops, peak, bytes, operations, ofLimit },
    error: event.error,
    errorMax: event.errorMax,
  };
}
