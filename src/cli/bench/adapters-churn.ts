// How evenly the tokens of running answers come while other requests' adapters load.

import { setTimeout as delay } from 'node:timers/promises';
import { Listeners, TIER_WORDS } from './adapter-trace.js';
import { LISTENERS, listenTokens, type AdaptersBase, type AdaptersContext } from './adapters-base.js';
import { quantileSummary, type Line } from './report.js';

const WINDOWS = 8;
const WINDOWS_QUICK = 2;
/** Requests of a window, at an even pace. */
const REQUESTS = 12;
const REQUESTS_QUICK = 3;
/** From one request to the next, over what a request takes whose adapter has to be loaded. */
const PACE = 1.25;

/**
 * Quiet: the requests beside the listeners name adapters that are there. Else each names one that has to be loaded. Both
 * come at one pace: what they have in common, their prompts, disturbs the listeners as often.
 */
export async function measureChurn(context: AdaptersContext, few: AdaptersBase, name: string): Promise<void> {
  const { settings, add } = context;
  const windows = settings.isQuick ? WINDOWS_QUICK : WINDOWS;
  const requests = settings.isQuick ? REQUESTS_QUICK : REQUESTS;
  const hot = Array.from({ length: LISTENERS }, (_, i) => i);
  await few.runAlone(hot);
  const listeners = new Listeners(few.base, hot.map(few.idOf), few.prompt, listenTokens(settings));
  const gaps = new Map<string, number[]>();
  // Adapters that weren't used for longest.
  let cold = hot.length;
  const next = () => (cold = Math.max(hot.length, (cold + 1) % few.registered));
  const turn = async (adapters: readonly number[], everyMs: number) => {
    const served = [];
    for (const adapter of adapters) {
      const began = performance.now();
      served.push(...(await few.runAlone([adapter])).served);
      await delay(Math.max(0, everyMs - (performance.now() - began)), undefined, { signal: context.io.signal });
    }
    return served;
  };
  try {
    const began = performance.now();
    await turn(Array.from({ length: requests }, next), 0);
    const everyMs = (PACE * (performance.now() - began)) / requests;
    for (let window = 0; window < windows; window++) {
      for (const isQuiet of window % 2 === 0 ? [true, false] : [false, true]) {
        const heard: number[] = [];
        listeners.listen((ms) => heard.push(ms));
        const trace = Array.from({ length: requests }, (_, i) => (isQuiet ? hot[i % hot.length]! : next()));
        const served = await turn(trace, everyMs);
        const tiers = served.map(({ tier }) => TIER_WORDS[tier]);
        const label = isQuiet ? 'quiet' : `loads from ${mostOf(tiers)}`;
        gaps.set(label, [...(gaps.get(label) ?? []), ...heard]);
      }
    }
  } finally {
    await listeners.close();
  }
  for (const [label, ms] of gaps) {
    if (ms.length === 0) continue;
    add(
      ...([50, 99] as const).map((percent): Line => ({
        name: `${name}, next token of others p${percent}, ${label}`,
        ...{ unit: 'ms', better: 'lower', plot: 'next token of others' },
        ...quantileSummary(ms, percent / 100),
      })),
    );
  }
}

function mostOf(words: readonly string[]): string {
  const count = (word: string) => words.filter((other) => other === word).length;
  return [...words].sort((a, b) => count(b) - count(a))[0]!;
}
