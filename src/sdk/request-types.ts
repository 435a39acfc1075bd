// What a caller says in `generate`, and what comes back.

import type { ChatMessage, Tool } from '../formats/tokenizer-types.js';

export type { ChatMessage, Tool, ToolCall } from '../formats/tokenizer-types.js';

/**
 * The prompt: text that the tokenizer encodes (with BOS and the like, BOS not twice where the text begins with it, as that
 * of `renderChat` may), a conversation, or token ids as they are.
 *
 * `parseSpecialTokens` says whether text that spells a special token (`<|im_end|>`) becomes that token. Default: true for
 * `prompt`, which is what the model reads; false for `messages` and `tools`, which may be anyone's text: there the special
 * tokens are those that the chat template writes.
 */
export type Prompt =
  | { prompt: string; parseSpecialTokens?: boolean }
  | { messages: readonly ChatMessage[]; tools?: readonly Tool[]; parseSpecialTokens?: boolean }
  | { tokens: ArrayLike<number> };

/**
 * One request. Sampling fields that are left out come from the checkpoint's generation_config.json; without that file, or
 * with `do_sample: false` in it, a request is greedy unless it gives a `temperature`.
 */
export type GenerateRequest = Prompt & GenerateOptions;

export interface GenerateOptions {
  /** Id of a registered adapter. Default: the base alone. A list of more than one, or a weight other than 1, is ERR_NOT_SUPPORTED. */
  adapter?: string | readonly { id: string; weight: number }[];
  /** Tokens to generate at the most. Default: what is left of the context. Together with the prompt it has to fit in it. */
  maxTokens?: number;
  /** Before this many tokens neither an end of sequence nor a stop ends the answer. Default: 0. */
  minTokens?: number;
  /** 0 is greedy, at most 100. Default: generation_config.json, else 1 where that file says `do_sample: true`, else 0. */
  temperature?: number;
  /** The k most likely tokens; 0 for all. Default: generation_config.json, else 0. */
  topK?: number;
  /** The most likely tokens that hold this share of the probability, in (0, 1]. Default: generation_config.json, else 1. */
  topP?: number;
  /** Tokens at least this likely relative to the most likely one, in [0, 1]. Default: generation_config.json, else 0. */
  minP?: number;
  /**
   * Divides the positive logits of tokens that the prompt or the answer has, and multiplies the negative ones; a finite
   * number above 0, below 1 it rewards. Also of a greedy answer. Default: generation_config.json, else 1.
   */
  repetitionPenalty?: number;
  /** Is subtracted from the logits of tokens that the answer has; from -2 to 2. Default: 0. */
  presencePenalty?: number;
  /** Is subtracted from a token's logit as often as the answer has the token; from -2 to 2. Default: 0. */
  frequencyPenalty?: number;
  /**
   * By token id: is added to the token's logit, before any penalty; from -100 to 100, or -Infinity, which forbids the
   * token. At most 4096 tokens. An id outside the vocabulary is ERR_TOKEN_RANGE. Default: none.
   */
  logitBias?: Readonly<Record<number, number>>;
  /** An integer in [0, 2^53). Default: drawn. `Result.seed` says it; the same seed gives the same answer in any batch. */
  seed?: number;
  /** Ends at the first of these texts, which is not part of the answer. At most 16, of 1 to 256 characters. Default: none. */
  stop?: readonly string[];
  /** Ends at the first of these tokens. At most 64. Default: none. */
  stopTokens?: readonly number[];
  /** Goes on past the end of sequence. Default: false. */
  ignoreEos?: boolean;
  /**
   * How many of the most likely tokens to name beside each generated one, 0 to 20; with 0 the generated one alone. Values
   * are the log-softmax of the raw logits, before bias, penalties and temperature. Default: no log-probabilities.
   */
  logprobs?: number;
  /** The same for the prompt's tokens, from the second one on. Default: none. */
  promptLogprobs?: number;
  /**
   * Whose request it is, 1 to 256 characters: its adapters are found before the shared ones, and tenants that have requests waiting
   * get the same service, however many each has. Requests of nobody count as one more tenant. Default: nobody's.
   */
  tenant?: string;
  /**
   * Who may share the KV of this prompt's beginning: requests with the same salt, 1 to 256 characters, whoever's they are.
   * Default: those of the same `tenant` without a salt; without a tenant, all that have neither.
   */
  cacheSalt?: string;
  /** Of its tenant's requests that wait, larger goes first; an answer that has begun goes on. An integer in [-2^31, 2^31). Default: 0. */
  priority?: number;
  /** Milliseconds from now, 1 to 2^31 - 1, after which the request fails with ERR_DEADLINE. Default: none. */
  deadlineMs?: number;
  /** Ends the request: it rejects with ERR_ABORTED. */
  signal?: AbortSignal;
}

/** Log-probability of a token, and of the most likely ones in its place. */
export interface TokenLogprob {
  token: number;
  logprob: number;
  /** Best first, as many as were asked for. */
  top: { token: number; logprob: number }[];
}

/** What arrived since the chunk before. Texts of all chunks joined are `Result.text`. */
export interface Chunk {
  /** Whole characters; perhaps empty, while a character or what may become a stop string is unfinished. */
  text: string;
  tokens: number[];
  /** One for each of `tokens`, if the request asked for them. */
  logprobs?: TokenLogprob[];
}

export type FinishReason = 'eos' | 'stop' | 'length' | 'cancelled';

/** Where an adapter's bytes were: on disk, in host memory, on the way to the device, or there. */
export type Tier = 'registered' | 'host' | 'loading' | 'resident';

/** How a request ended. */
export interface Result {
  /** Without the stop string that ended it. */
  text: string;
  /** Every generated token, the one that ended the request included. */
  tokens: number[];
  /** `eos`: end of sequence; `stop`: a stop string or stop token; `length`: `maxTokens`; `cancelled`: by the caller. */
  finishReason: FinishReason;
  /** As given, or as drawn. */
  seed: number;
  /** Tokens of the prompt, of the answer, and of the prompt those whose KV was found in the prefix cache. */
  usage: { input: number; output: number; cachedInput: number };
  /** Milliseconds: waiting in the queue, waiting for the adapter, to the first token, and between later ones. */
  timing: { queuedMs: number; adapterLoadMs: number; ttftMs: number; tpotMs: number };
  /** In the request's order; `generation` is the SHA-256 of the content that was used. */
  adapters: { id: string; generation: string; tier: Tier; weight: number }[];
  /** One for each of `tokens`, if the request asked for them. */
  logprobs?: TokenLogprob[];
  /** From the prompt's second token on, if the request asked for them. */
  promptLogprobs?: TokenLogprob[];
}

/**
 * A running request. Iterate over it for chunks, or read `result` or `text()`: it runs to its end either way. It is no
 * thenable: `await generate(…)` gives the Generation itself.
 *
 * Leaving a `for await` loop cancels it. Back-pressure begins when an iterator is taken: while more than 64 tokens wait to
 * be read the request is paused, keeping its memory. Only one iterator can be taken (ERR_ITERATOR_TAKEN).
 */
export interface Generation extends AsyncIterable<Chunk>, AsyncDisposable {
  /** Unique; begins with the base's own name. */
  readonly id: string;
  /** Every error of the request rejects it; a rejection that nobody reads is harmless. */
  readonly result: Promise<Result>;
  /** `(await result).text`. Lifts back-pressure. */
  text(): Promise<string>;
  /** Ends the request; `result` resolves with what there is and `finishReason: 'cancelled'`. `reason` goes to the logger. */
  cancel(reason?: unknown): void;
}
