// Requests that generate side by side, and how fast they do once all of them are past their prompts.

import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Base, EngineStats, Generation } from '../../index.js';

export interface BatchRequest {
  tokens: number[];
  adapter?: string;
}

export interface Window {
  tokensPerSecond: number;
  /** Of one step, by the engine's counters. */
  rows: number;
  weightBytes: number;
  loraBytes: number;
  /** Tokens that a row attends to, on average. */
  context: number;
}

interface Moment {
  at: number;
  tokens: number;
  stats: EngineStats;
}

export class RunningBatch {
  readonly #generations: Generation[];
  readonly #readers: Promise<void>[];
  readonly #counts: number[];
  readonly #promptTokens: number;
  readonly #failed: Promise<never>;
  #isClosing = false;
  #wake: () => void = () => undefined;

  /** `tokensMax`: of each answer; the batch is over before. */
  constructor(
    private readonly base: Base,
    requests: readonly BatchRequest[],
    tokensMax: number,
    signal: AbortSignal,
  ) {
    this.#counts = requests.map(() => 0);
    this.#promptTokens = requests.reduce((sum, { tokens }) => sum + tokens.length, 0) / requests.length;
    this.#generations = requests.map((request) =>
      base.generate({ ...request, maxTokens: tokensMax, ignoreEos: true, temperature: 0, signal }),
    );
    this.#readers = this.#generations.map((generation, i) => this.#read(generation, i));
    this.#failed = new Promise((_, reject) => {
      for (const reader of this.#readers) reader.catch(reject);
    });
    this.#failed.catch(() => undefined);
  }

  /** Resolves when every request has its first token: from then on each step has a row for each of them. */
  async ready(): Promise<void> {
    await this.#until(() => this.#counts.every((count) => count > 0));
  }

  /** Measures the next `steps` steps, by the engine's counters: this thread may hear of them later. */
  async window(steps: number): Promise<Window> {
    const from = await this.#now();
    await this.#until(() => this.base.stats().steps >= from.stats.steps + steps);
    const to = await this.#now();
    type Counter = 'steps' | 'rows' | 'tokensOut' | 'weightBytesRead' | 'loraBytesRead';
    const delta = (key: Counter) => to.stats[key] - from.stats[key];
    const generated = (from.tokens + to.tokens) / 2 / this.#counts.length;
    return {
      tokensPerSecond: (delta('tokensOut') / (to.at - from.at)) * 1000,
      rows: delta('rows') / delta('steps'),
      weightBytes: delta('weightBytesRead') / delta('steps'),
      loraBytes: delta('loraBytesRead') / delta('steps'),
      context: this.#promptTokens + generated,
    };
  }

  /** Ends the requests. */
  async close(): Promise<void> {
    this.#isClosing = true;
    for (const generation of this.#generations) generation.cancel();
    await Promise.allSettled(this.#generations.map(({ result }) => result));
  }

  /** After the turn in which all tokens of a step have arrived. */
  async #now(): Promise<Moment> {
    await nextTurn();
    return { at: performance.now(), tokens: this.#counts.reduce((sum, n) => sum + n, 0), stats: this.base.stats() };
  }

  async #read(generation: Generation, i: number): Promise<void> {
    for await (const { tokens } of generation) {
      this.#counts[i]! += tokens.length;
      this.#wake();
    }
    if (!this.#isClosing) throw new Error(`request ${i} ended after ${this.#counts[i]} tokens, before it was measured`);
  }

  async #until(condition: () => boolean): Promise<void> {
    const met = new Promise<void>((resolve) => {
      this.#wake = () => {
        if (condition()) resolve();
      };
      this.#wake();
    });
    await Promise.race([met, this.#failed]);
    this.#wake = () => undefined;
  }
}
