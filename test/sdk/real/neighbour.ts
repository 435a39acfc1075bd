// Streams that run on a base while something bad is done beside them, and have to end as they do alone.

import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'vitest';
import type { Base, GenerateRequest, TokenLogprob } from '../../../src/index.js';

const TOKENS = 300;
/** No more is read before the bad thing is over: back-pressure then holds the stream in flight. */
const TOKENS_BEFORE = 100;

interface Answer {
  tokens: number[];
  logprobs: TokenLogprob[];
  text: string;
}

export class Neighbours {
  readonly #requests: GenerateRequest[];
  #alone: Answer[] = [];

  private constructor(
    private readonly base: Base,
    adapter: string,
  ) {
    const usual = { maxTokens: TOKENS, ignoreEos: true, logprobs: 2 };
    this.#requests = [
      { ...usual, prompt: 'a neighbour', adapter, temperature: 1, seed: 7 },
      { ...usual, prompt: 'a greedy one' },
    ];
  }

  /** Hears first what each says alone. */
  static async of(base: Base, adapter: string): Promise<Neighbours> {
    const neighbours = new Neighbours(base, adapter);
    for (const request of neighbours.#requests) {
      neighbours.#alone.push(await neighbours.#read(request, () => undefined, Promise.resolve()));
    }
    return neighbours;
  }

  /** Runs `action` when all neighbours stream, and checks that they end as alone. */
  async during<T>(action: () => Promise<T>): Promise<T> {
    let finish!: () => void;
    const over = new Promise<void>((resolve) => (finish = resolve));
    const began: Promise<void>[] = [];
    const answers = this.#requests.map((request) => {
      let begin!: () => void;
      began.push(new Promise((resolve) => (begin = resolve)));
      return this.#read(request, begin, over);
    });
    try {
      await Promise.race([Promise.all(began), Promise.all(answers)]);
      return await action();
    } finally {
      finish();
      expect(await Promise.all(answers)).toEqual(this.#alone);
    }
  }

  async #read(request: GenerateRequest, begin: () => void, over: Promise<void>): Promise<Answer> {
    let isOver = false;
    void over.then(() => (isOver = true));
    const answer: Answer = { tokens: [], logprobs: [], text: '' };
    for await (const { tokens, logprobs, text } of this.base.generate(request)) {
      begin();
      answer.tokens.push(...tokens);
      answer.logprobs.push(...logprobs!);
      answer.text += text;
      if (isOver) continue;
      if (answer.tokens.length < TOKENS_BEFORE) await sleep(1);
      else await over;
    }
    return answer;
  }
}
