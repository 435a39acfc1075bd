// Which adapter each request names, and requests that run so many at once (a closed loop: the next begins when one has
// ended).

import type { Base, EngineStats, Result, Tier } from '../../index.js';

const SEED = 0x9e3779b9;

/** By xorshift32, the same in every run. */
export class SeededRandom {
  #state: number;

  constructor(seed: number) {
    this.#state = (SEED ^ Math.imul(seed + 1, 0x85ebca6b)) >>> 0 || 1;
  }

  /** In [0, 2^32). */
  next(): number {
    this.#state ^= this.#state << 13;
    this.#state ^= this.#state >>> 17;
    this.#state ^= this.#state << 5;
    return this.#state >>> 0;
  }

  below(count: number): number {
    return this.next() % count;
  }
}

export const TRACES = ['zipf', 'uniform'] as const;
export type TraceKind = (typeof TRACES)[number];

/** Where adapters were, in words. */
export const TIER_WORDS: Record<Tier, string> = {
  registered: 'disk',
  host: 'host memory',
  loading: 'on the way',
  resident: 'resident',
};

/** Adapters 0 to `adapters` - 1. zipf: adapter i has weight 1 / (i + 1), exponent 1. */
export function traceOf(kind: TraceKind, adapters: number, length: number, random: SeededRandom): number[] {
  if (kind === 'uniform') return Array.from({ length }, () => random.below(adapters));
  let sum = 0;
  const sums = Array.from({ length: adapters }, (_, i) => (sum += 1 / (i + 1)));
  return Array.from({ length }, () => {
    const at = (random.next() / 2 ** 32) * sum;
    let [low, high] = [0, adapters - 1];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (sums[middle]! > at) high = middle;
      else low = middle + 1;
    }
    return low;
  });
}

export interface LoopRequest {
  /** Index of the adapter; undefined: the base alone. */
  adapter: number | undefined;
  tokens: number[];
  maxTokens: number;
}

/** One request that was answered. */
export interface Served {
  adapter: number;
  tier: Tier;
  ttftMs: number;
}

export interface LoopResult {
  /** Those that named an adapter. */
  served: Served[];
  tokens: number;
  ms: number;
  /** The most that was held at the end of a request. */
  peak: EngineStats['bytes'];
}

export interface Loop {
  /** The base that answers requests for this adapter. */
  baseOf: (adapter: number | undefined) => Base;
  idOf: (adapter: number) => string;
  atOnce: number;
  signal: AbortSignal;
  onServed?: (served: Served) => void;
}

/** Ends when every request has. */
export async function runLoop(loop: Loop, requests: readonly LoopRequest[]): Promise<LoopResult> {
  const served: Served[] = [];
  let peak: LoopResult['peak'] | undefined;
  let [next, tokens] = [0, 0];
  const began = performance.now();
  const client = async () => {
    for (let request = requests[next++]; request !== undefined; request = requests[next++]) {
      const base = loop.baseOf(request.adapter);
      const { adapter } = request;
      const result = await generate(base, adapter === undefined ? undefined : loop.idOf(adapter), request, loop.signal);
      tokens += result.tokens.length;
      peak = largest(peak, base.stats().bytes);
      if (adapter === undefined) continue;
      const one = { adapter, tier: result.adapters[0]!.tier, ttftMs: result.timing.ttftMs };
      served.push(one);
      loop.onServed?.(one);
    }
  };
  await Promise.all(Array.from({ length: loop.atOnce }, client));
  return { served, tokens, ms: performance.now() - began, peak: peak! };
}

const generate = (
  base: Base,
  adapter: string | undefined,
  { tokens, maxTokens }: LoopRequest,
  signal: AbortSignal,
): Promise<Result> => {
  const request = { tokens, maxTokens, ignoreEos: true, temperature: 0, signal };
  return base.generate(adapter === undefined ? request : { ...request, adapter }).result;
};

function largest(one: EngineStats['bytes'] | undefined, other: EngineStats['bytes']): EngineStats['bytes'] {
  if (one === undefined) return other;
  const entries = Object.entries(other).map(([key, value]) => [key, Math.max(value, one[key as keyof typeof one])]);
  return Object.fromEntries(entries) as EngineStats['bytes'];
}

/** Answers that run on and on: how long each of their tokens comes after the one before. */
export class Listeners {
  readonly #ended: Promise<void>[];
  readonly #stop = new AbortController();
  #onGap: (ms: number) => void = () => undefined;

  /** `promptOf` makes a prompt that nobody had before; each answer has `maxTokens`, then the next begins. */
  constructor(
    private readonly base: Base,
    adapters: readonly string[],
    private readonly promptOf: () => number[],
    private readonly maxTokens: number,
  ) {
    this.#ended = adapters.map((adapter) => this.#listen(adapter));
    for (const ended of this.#ended) ended.catch(() => undefined); // close() tells
  }

  /** Gaps that end from now on go to `onGap`. */
  listen(onGap: (ms: number) => void): void {
    this.#onGap = onGap;
  }

  async close(): Promise<void> {
    this.#stop.abort();
    await Promise.all(this.#ended);
  }

  async #listen(adapter: string): Promise<void> {
    const { signal } = this.#stop;
    while (!signal.aborted) {
      const request = { tokens: this.promptOf(), adapter, maxTokens: this.maxTokens, ignoreEos: true, temperature: 0 };
      let before: number | undefined;
      try {
        for await (const { tokens } of this.base.generate({ ...request, signal })) {
          if (tokens.length === 0) continue;
          const now = performance.now();
          if (before !== undefined) this.#onGap(now - before);
          before = now;
        }
      } catch (error) {
        if (!signal.aborted) throw error;
      }
    }
  }
}
