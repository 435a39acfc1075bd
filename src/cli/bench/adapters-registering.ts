// What it takes to register adapters: the 10th beside the last, and the memory of each.

import { readFileSync } from 'node:fs';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import type { AdaptersBase, AdaptersContext } from './adapters-base.js';
import { adapterFile } from './adapters-folder.js';
import { once } from './model-session.js';
import { summary } from './report.js';

/** Registrations whose median is that of the 10th, and of the last. */
const REGISTRATIONS = 10;
/** That are dropped again, before those that count: the first ones on a base take twice as long. */
const REHEARSALS = 100;

/** Registers the first `count` on `few`, which has none. */
export async function measureRegistering(
  context: AdaptersContext,
  few: AdaptersBase,
  count: number,
  name: string,
): Promise<void> {
  const first = Math.min(REGISTRATIONS, count >> 1);
  const half = Math.max(first, count >> 1);
  const last = Math.min(REGISTRATIONS, count - half);
  await few.register(Math.min(REHEARSALS, count));
  await few.unregister();
  // Both are read from the page cache, whatever of the folder was there.
  readFiles(context, 0, Math.min(half, 2 * REGISTRATIONS));
  const halfMs = await few.register(half);
  collectGarbage();
  const rssBefore = process.memoryUsage.rss();
  const restMs = await few.register(count - half - last);
  readFiles(context, count - last, count);
  restMs.push(...(await few.register(last)));
  collectGarbage();
  const grown = (process.memoryUsage.rss() - rssBefore) / (count - half) / 1024;
  const ms = { unit: 'ms', better: 'lower', plot: 'registration' } as const;
  const allMs = [...halfMs, ...restMs];
  const around = allMs.slice(first >> 1, (first >> 1) + REGISTRATIONS);
  context.add(
    { name: `${name}, registering the ${first}th`, ...ms, ...summary(around) },
    { name: `${name}, registering the last`, ...ms, ...summary(restMs.slice(-REGISTRATIONS)) },
    ...(grown > 0 ? [{ ...once(`${name}, memory of each`, 'KiB', grown), samples: count - half }] : []),
  );
}

function readFiles({ folder, io }: AdaptersContext, first: number, end: number): void {
  for (const path of folder.adapters.slice(first, end)) {
    io.signal.throwIfAborted();
    readFileSync(adapterFile(path));
  }
}

/** What is garbage is nobody's memory. */
export function collectGarbage(): void {
  setFlagsFromString('--expose-gc');
  (runInNewContext('gc') as () => void)();
}
