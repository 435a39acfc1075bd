// One request: what arrived, who reads it, and how it ends.

import { OpenLoraError } from '../errors.js';
import type { ControlEvent } from '../native/binding.js';
import { Deferred } from './deferred.js';
import { abortedError } from './errors.js';
import { onAbort } from './signals.js';
import type { Chunk, FinishReason, Generation, Result, TokenLogprob } from './request-types.js';

/** Unread tokens above which a request that is iterated over is paused. */
export const UNREAD_TOKENS_MAX = 64;

/** What a request needs of its base. */
export interface RequestControl {
  /** Both name a request that was submitted. */
  cancel(request: number): void;
  pause(request: number, isPaused: boolean): void;
  /** No event of this request follows. */
  release(request: number): void;
}

/** An adapter as the request found it. */
export interface UsedAdapter {
  id: string;
  generation: string;
  handle: number;
  weight: number;
}

/** What is known once the request's options are checked. */
export interface RequestFacts {
  seed: number;
  adapters: UsedAdapter[];
  hasLogprobs: boolean;
  hasPromptLogprobs: boolean;
}

type EndEvent = Extract<ControlEvent, { kind: 'end' }>;
type Waiter = Deferred<IteratorResult<Chunk, undefined>>;

const DONE: IteratorResult<Chunk, undefined> = Object.freeze({ value: undefined, done: true });

/**
 * The request as the base sees it; callers hold the `generation`. `preparing` (checked, encoded) → `submitted` → `over`,
 * when the engine will say no more of it. The caller may have its answer earlier: an abort rejects at once.
 */
export class ActiveRequest {
  readonly generation: Generation;
  /** Resolves when the engine is done with it. */
  readonly over = new Deferred<void>();
  /** Ends the tokenizer's work for it. */
  readonly preparation = new AbortController();
  /** Whose it is; set when its base counts it. */
  tenant: string | undefined;

  #stage: 'preparing' | 'submitted' | 'over' = 'preparing';
  #facts: RequestFacts = { seed: 0, adapters: [], hasLogprobs: false, hasPromptLogprobs: false };
  readonly #result = new Deferred<Result>();
  #isSettled = false;
  #isCancelled = false;
  #signal: AbortSignal | undefined;
  #unwatch: () => void = () => undefined;

  readonly #texts: string[] = [];
  readonly #tokens: number[] = [];
  readonly #logprobs: TokenLogprob[] = [];
  readonly #promptLogprobs: TokenLogprob[] = [];

  // The reader's side: how much of the arrays above it has been given.
  #textsRead = 0;
  #tokensRead = 0;
  #isIterated = false;
  #isReadingAll = false;
  #isPaused = false;
  #readerError: OpenLoraError | undefined;
  #isReaderDone = false;
  readonly #waiters: Waiter[] = [];

  constructor(
    readonly id: string,
    readonly number: number,
    private readonly control: RequestControl,
    private readonly onCancel: (reason: unknown) => void,
  ) {
    this.generation = this.#makeGeneration();
  }

  get isPreparing(): boolean {
    return this.#stage === 'preparing';
  }

  setFacts(facts: RequestFacts): void {
    this.#facts = facts;
  }

  /** From here on `signal` ends the request. */
  watch(signal: AbortSignal): void {
    this.#signal = signal;
    this.#unwatch = onAbort(signal, () => this.#abort());
  }

  /** The engine has it: exactly one of `end` and `fail` follows. */
  markSubmitted(): void {
    this.#stage = 'submitted';
  }

  addToken(token: number, text: string, logprob: TokenLogprob | undefined): void {
    if (this.#isSettled) return;
    this.#tokens.push(token);
    if (logprob !== undefined) this.#logprobs.push(logprob);
    if (text !== '') this.#texts.push(text);
    this.#wake();
    const unread = this.#tokens.length - this.#tokensRead;
    if (this.#isIterated && !this.#isReadingAll && !this.#isReaderDone && unread > UNREAD_TOKENS_MAX)
      this.#setPaused(true);
  }

  addText(text: string): void {
    if (text === '' || this.#isSettled) return;
    this.#texts.push(text);
    this.#wake();
  }

  addPromptLogprob(logprob: TokenLogprob): void {
    this.#promptLogprobs.push(logprob);
  }

  /** The engine's word that the request has ended. */
  end(event: EndEvent): void {
    const { input, output, cachedInput, queuedMs, adapterLoadMs, ttftMs, tpotMs } = event;
    const adapters = this.#facts.adapters.map(({ id, generation, handle, weight }) => {
      const tier = event.adapters.find((used) => used.handle === handle)?.tier ?? 'registered';
      return { id, generation, tier, weight };
    });
    this.#settle({
      ...this.#answer(this.#isCancelled ? 'cancelled' : event.finishReason),
      usage: { input, output, cachedInput },
      timing: { queuedMs, adapterLoadMs, ttftMs, tpotMs },
      adapters,
    });
    this.#finish();
  }

  /** Ends it with an error, from the engine or before it came that far. */
  fail(error: OpenLoraError): void {
    if (this.#stage === 'preparing') this.preparation.abort();
    this.#reject(error);
    this.#finish();
  }

  cancel(reason?: unknown): void {
    if (this.#isSettled || this.#isCancelled) return;
    this.#isCancelled = true;
    this.onCancel(reason);
    if (this.#stage === 'submitted') {
      this.control.cancel(this.number);
      return;
    }
    this.#stopPreparing();
    this.#settle({
      ...this.#answer('cancelled'),
      usage: { input: 0, output: 0, cachedInput: 0 },
      timing: { queuedMs: 0, adapterLoadMs: 0, ttftMs: 0, tpotMs: 0 },
      adapters: this.#facts.adapters.map(({ id, generation, weight }) => ({
        id,
        generation,
        tier: 'registered',
        weight,
      })),
    });
  }

  #abort(): void {
    if (this.#isSettled) return;
    if (this.#stage === 'submitted') this.control.cancel(this.number);
    else this.#stopPreparing();
    // What waits to be read is dropped: who aborts wants no more of it.
    this.#textsRead = this.#texts.length;
    this.#tokensRead = this.#tokens.length;
    this.#reject(abortedError('generate', this.#signal!));
  }

  #stopPreparing(): void {
    this.preparation.abort();
    this.#finish();
  }

  #finish(): void {
    if (this.#stage === 'over') return;
    this.#stage = 'over';
    this.control.release(this.number);
    this.over.resolve();
  }

  #answer(
    finishReason: FinishReason,
  ): Pick<Result, 'text' | 'tokens' | 'finishReason' | 'seed' | 'logprobs' | 'promptLogprobs'> {
    const { seed, hasLogprobs, hasPromptLogprobs } = this.#facts;
    return {
      text: this.#texts.join(''),
      tokens: this.#tokens.slice(),
      finishReason,
      seed,
      ...(hasLogprobs ? { logprobs: this.#logprobs.slice() } : {}),
      ...(hasPromptLogprobs ? { promptLogprobs: this.#promptLogprobs } : {}),
    };
  }

  #settle(result: Result): void {
    if (this.#isSettled) return;
    this.#isSettled = true;
    this.#unwatch();
    this.#result.resolve(result);
    this.#wake();
  }

  #reject(error: OpenLoraError): void {
    if (this.#isSettled) return;
    this.#isSettled = true;
    this.#unwatch();
    this.#readerError = error;
    this.#result.reject(error);
    this.#wake();
  }

  // ---- reading ----

  #wake(): void {
    while (this.#waiters.length > 0) {
      const step = this.#step();
      if (step === undefined) return;
      const waiter = this.#waiters.shift()!;
      if (step instanceof OpenLoraError) waiter.reject(step);
      else waiter.resolve(step);
    }
  }

  /** What the reader gets now, if there is anything: first what arrived, then the error if there was one, then the end. */
  #step(): IteratorResult<Chunk, undefined> | OpenLoraError | undefined {
    if (this.#isReaderDone) return DONE;
    if (this.#textsRead < this.#texts.length || this.#tokensRead < this.#tokens.length) {
      return { value: this.#takeChunk(), done: false };
    }
    if (!this.#isSettled) return undefined;
    this.#isReaderDone = true;
    return this.#readerError ?? DONE;
  }

  #takeChunk(): Chunk {
    const from = this.#tokensRead;
    const isOneText = this.#texts.length - this.#textsRead === 1;
    const text = isOneText ? this.#texts[this.#textsRead]! : this.#texts.slice(this.#textsRead).join('');
    this.#textsRead = this.#texts.length;
    this.#tokensRead = this.#tokens.length;
    this.#setPaused(false);
    const tokens = this.#tokens.slice(from);
    return this.#facts.hasLogprobs ? { text, tokens, logprobs: this.#logprobs.slice(from) } : { text, tokens };
  }

  #setPaused(isPaused: boolean): void {
    if (this.#isPaused === isPaused) return;
    this.#isPaused = isPaused;
    if (this.#stage === 'submitted') this.control.pause(this.number, isPaused);
  }

  #next(): Promise<IteratorResult<Chunk, undefined>> {
    const step = this.#waiters.length > 0 ? undefined : this.#step();
    if (step === undefined) {
      const waiter: Waiter = new Deferred();
      this.#waiters.push(waiter);
      return waiter.promise;
    }
    return step instanceof OpenLoraError ? Promise.reject(step) : Promise.resolve(step);
  }

  #leave(): void {
    this.cancel();
    this.#isReaderDone = true;
    this.#wake();
  }

  #iterate(): AsyncIterator<Chunk, undefined> {
    if (this.#isIterated) {
      const error = new OpenLoraError(
        'ERR_ITERATOR_TAKEN',
        'this generation is iterated over already, wanted one reader',
      );
      return { next: () => Promise.reject(error) };
    }
    this.#isIterated = true;
    return {
      next: () => this.#next(),
      return: () => {
        this.#leave();
        return Promise.resolve(DONE);
      },
    };
  }

  #readAll(): Promise<Result> {
    this.#isReadingAll = true;
    this.#setPaused(false);
    return this.#result.promise;
  }

  async #dispose(): Promise<void> {
    this.#leave();
    await this.over.promise;
  }

  #makeGeneration(): Generation {
    const generation: Generation = {
      id: this.id,
      result: this.#result.promise,
      text: async () => (await this.#readAll()).text,
      cancel: (reason) => this.cancel(reason),
      [Symbol.asyncIterator]: () => this.#iterate(),
      [Symbol.asyncDispose]: () => this.#dispose(),
    };
    return Object.freeze(generation);
  }
}
