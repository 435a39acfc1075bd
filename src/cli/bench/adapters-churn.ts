// How evenly the tokens of running answers come while other requests' adapters load.

import { setTimeout as delay } from 'node:timers/promises';
import { Listeners } from './adapter-trace.js';
import { LISTENERS, listenTokens, type AdaptersBase, type AdaptersContext } from './adapters-base.js';
import { quantileSummary, type Line } from './report.js';
import type { AdaptersSettings } from './settings.js';

const WINDOWS = 12;
const WINDOWS_QUICK = 2;
/** Requests of a window, at an even pace. */
const REQUESTS = 12;
const REQUESTS_QUICK = 3;
/** From one request to the next, over what the slowest kind takes. */
const PACE = 1.25;

/** What the requests beside the running answers name. The two quiet ones differ in what the machine does by itself. */
const KINDS = {
  quiet: 'quiet',
  again: 'quiet again',
  host: 'loads from host memory',
  disk: 'loads from disk',
  unpacked: 'first packing',
} as const;
type Kind = keyof typeof KINDS;
/** One with each of them before each other as often as after it. */
const ORDERS: readonly Kind[][] = [
  ['quiet', 'host', 'again', 'disk', 'unpacked'],
  ['unpacked', 'disk', 'again', 'host', 'quiet'],
];

const windowsOf = ({ isQuick }: AdaptersSettings) => (isQuick ? WINDOWS_QUICK : WINDOWS);
const requestsOf = ({ isQuick }: AdaptersSettings) => (isQuick ? REQUESTS_QUICK : REQUESTS);

/** So many adapters have to be unpacked, the last ones; the first window finds out the pace. */
export const unpackedWanted = (settings: AdaptersSettings) => (windowsOf(settings) + 1) * requestsOf(settings);

/**
 * Quiet: the requests beside the listeners name adapters that are there. All kinds come at one pace: what they have in
 * common, their prompts, disturbs the listeners as often. The adapters from `unpacked` on weren't packed yet.
 */
export async function measureChurn(
  context: AdaptersContext,
  few: AdaptersBase,
  name: string,
  unpacked: number,
): Promise<void> {
  const { settings, io } = context;
  const hot = Array.from({ length: LISTENERS }, (_, i) => i);
  await few.runAlone(hot);
  const listeners = new Listeners(few.base, hot.map(few.idOf), few.prompt, listenTokens(settings));
  const found = new Map<Kind, { gaps: number[]; firstTokens: number[] }>();
  let [next, everyMs] = [unpacked, 0];
  const choose = (kind: Kind): number[] => {
    const count = requestsOf(settings);
    if (kind === 'quiet' || kind === 'again') return Array.from({ length: count }, (_, i) => hot[i % hot.length]!);
    if (kind === 'unpacked') {
      const end = Math.min(next + count, few.registered);
      return Array.from({ length: end - next }, () => next++);
    }
    const tier = kind === 'host' ? 'host' : 'registered';
    const those = Array.from({ length: unpacked }, (_, i) => i).filter((adapter) => few.tierOf(adapter) === tier);
    // Evenly from all that there are: those that were used longest ago would leave meanwhile.
    return Array.from(
      { length: Math.min(count, those.length) },
      (_, i) => those[Math.floor((i * those.length) / count)]!,
    );
  };
  const run = async (kind: Kind) => {
    const { gaps, firstTokens } = found.get(kind) ?? { gaps: [], firstTokens: [] };
    found.set(kind, { gaps, firstTokens });
    const adapters = choose(kind);
    listeners.listen((ms) => gaps.push(ms));
    for (const adapter of adapters) {
      const began = performance.now();
      firstTokens.push(...(await few.runAlone([adapter])).served.map(({ ttftMs }) => ttftMs));
      await delay(Math.max(0, everyMs - (performance.now() - began)), undefined, { signal: io.signal });
    }
    listeners.listen(() => undefined);
  };
  try {
    const began = performance.now();
    await run('unpacked');
    everyMs = (PACE * (performance.now() - began)) / requestsOf(settings);
    found.clear();
    for (let window = 0; window < windowsOf(settings); window++)
      for (const kind of ORDERS[window % ORDERS.length]!) await run(kind);
  } finally {
    await listeners.close();
  }
  for (const [kind, { gaps, firstTokens }] of found) {
    addQuantiles(context, `${name}, next token of others`, KINDS[kind], gaps);
    addQuantiles(context, `${name}, first token beside others`, KINDS[kind], firstTokens);
  }
}

function addQuantiles({ add }: AdaptersContext, name: string, label: string, ms: readonly number[]): void {
  if (ms.length === 0) return;
  const plot = name.slice(name.lastIndexOf(',') + 2);
  add(
    ...([50, 99] as const).map((percent): Line => ({
      name: `${name} p${percent}, ${label}`,
      ...{ unit: 'ms', better: 'lower', plot },
      ...quantileSummary(ms, percent / 100),
    })),
  );
}
