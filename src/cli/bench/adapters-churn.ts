// How evenly the tokens of running answers come while other requests' adapters load.

import { Listeners, TIER_WORDS } from './adapter-trace.js';
import { LISTENERS, listenTokens, type AdaptersBase, type AdaptersContext } from './adapters-base.js';
import { quantileSummary, type Line } from './report.js';

const WINDOWS = 8;
const WINDOWS_QUICK = 2;
/** Requests of a window, one after another. */
const REQUESTS = 12;
const REQUESTS_QUICK = 3;

/** Quiet: the requests beside the listeners name adapters that are there. Else each names one that has to be loaded. */
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
  try {
    for (let window = 0; window < windows; window++) {
      for (const isQuiet of window % 2 === 0 ? [true, false] : [false, true]) {
        const heard: number[] = [];
        listeners.listen((ms) => heard.push(ms));
        const trace = Array.from({ length: requests }, (_, i) => (isQuiet ? hot[i % hot.length]! : next()));
        const { served } = await few.runAlone(trace);
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
