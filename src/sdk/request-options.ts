// What `generate` was given: checked, with its defaults.

import { OpenLoraError } from '../errors.js';
import { isRepetitionPenalty } from '../formats/generation-config.js';
import type { GenerationDefaults } from '../formats/types.js';
import type { RequestSpec } from '../native/binding.js';
import { notSupportedError } from './errors.js';
import { drawSeed } from './random.js';
import type { ChatMessage, GenerateOptions, Prompt, Tool } from './request-types.js';
import {
  checkBoolean,
  checkInteger,
  checkKeys,
  checkName,
  checkNumber,
  checkObject,
  checkSignal,
  checkText,
  invalid,
  show,
} from './validate.js';

export const STOP_COUNT_MAX = 16;
export const STOP_LENGTH_MAX = 256;
export const STOP_TOKENS_MAX = 64;
export const LOGPROBS_MAX = 20;
export const LOGIT_BIAS_COUNT_MAX = 4096;
const LOGIT_BIAS_MAX = 100;
const TEMPERATURE_MAX = 100;
/** OpenAI's range and vLLM's. */
const PENALTY_MAX = 2;
const INT32_MAX = 2 ** 31 - 1;
/** Characters for each token of the context. No text has so few tokens; encoding it would hold up everyone's. */
const TOKEN_LENGTH_MAX = 64;

type KeysOf<T> = T extends unknown ? keyof T : never;
type RequestKey = KeysOf<Prompt> | keyof GenerateOptions;
type Given = Partial<Record<RequestKey, unknown>>;

// prettier-ignore
const REQUEST_KEYS = {
  prompt: 0, messages: 0, tools: 0, parseSpecialTokens: 0, tokens: 0, adapter: 0, maxTokens: 0, minTokens: 0, temperature: 0, topK: 0, topP: 0, minP: 0,
  repetitionPenalty: 0, presencePenalty: 0, frequencyPenalty: 0, logitBias: 0, seed: 0, stop: 0, stopTokens: 0, ignoreEos: 0,
  logprobs: 0, promptLogprobs: 0, tenant: 0, cacheSalt: 0, priority: 0, deadlineMs: 0, signal: 0,
} satisfies Record<RequestKey, 0>;

/** What a base says about requests. */
export interface RequestRules {
  vocabSize: number;
  contextLength: number;
  eosTokens: number[];
  generation: GenerationDefaults;
}

export type CheckedPrompt =
  | { kind: 'text'; text: string; parseSpecialTokens: boolean }
  | { kind: 'chat'; messages: readonly ChatMessage[]; tools: readonly Tool[] | undefined; parseSpecialTokens: boolean }
  | { kind: 'tokens'; tokens: Uint32Array };

/** Fields of the native request that don't depend on the prompt's length or on the adapter's handle. */
export type Sampling = Omit<RequestSpec, 'id' | 'tokens' | 'adapters' | 'maxTokens'>;

export interface CheckedRequest {
  prompt: CheckedPrompt;
  adapter: string | undefined;
  tenant: string | undefined;
  /** undefined: what is left of the context. */
  maxTokens: number | undefined;
  sampling: Sampling;
  signal: AbortSignal | undefined;
}

export function checkRequest(given: unknown, rules: RequestRules): CheckedRequest {
  const o = checkObject('generate', given) as Given;
  checkKeys('generate', o, REQUEST_KEYS);
  return {
    prompt: checkPrompt(o, rules),
    adapter: checkAdapter(o.adapter),
    tenant: o.tenant === undefined ? undefined : checkName('tenant', o.tenant),
    maxTokens: o.maxTokens === undefined ? undefined : checkInteger('maxTokens', o.maxTokens, 1, INT32_MAX),
    sampling: checkSampling(o, rules),
    signal: o.signal === undefined ? undefined : checkSignal('signal', o.signal),
  };
}

function checkSampling(o: Given, rules: RequestRules): Sampling {
  const { generation } = rules;
  const isIgnoringEos = o.ignoreEos !== undefined && checkBoolean('ignoreEos', o.ignoreEos);
  return {
    minTokens: checkInteger('minTokens', o.minTokens ?? 0, 0, INT32_MAX),
    temperature: checkNumber(
      'temperature',
      o.temperature ?? (generation.doSample === true ? (generation.temperature ?? 1) : 0),
      (value) => value >= 0 && value <= TEMPERATURE_MAX,
      `a number from 0 to ${TEMPERATURE_MAX}`,
    ),
    topK: checkInteger('topK', o.topK ?? generation.topK ?? 0, 0, INT32_MAX),
    topP: checkNumber('topP', o.topP ?? generation.topP ?? 1, (v) => v > 0 && v <= 1, 'a number above 0, at most 1'),
    minP: checkNumber('minP', o.minP ?? generation.minP ?? 0, (v) => v >= 0 && v <= 1, 'a number from 0 to 1'),
    ...checkPenalties(o, generation),
    ...checkLogitBias(o.logitBias, rules.vocabSize),
    seed: o.seed === undefined ? drawSeed() : checkInteger('seed', o.seed, 0, Number.MAX_SAFE_INTEGER),
    stop: checkStop(o.stop),
    stopTokens: checkStopTokens(o.stopTokens, rules.vocabSize),
    eosTokens: isIgnoringEos ? [] : rules.eosTokens,
    logprobs: o.logprobs === undefined ? -1 : checkInteger('logprobs', o.logprobs, 0, LOGPROBS_MAX),
    promptLogprobs:
      o.promptLogprobs === undefined ? -1 : checkInteger('promptLogprobs', o.promptLogprobs, 0, LOGPROBS_MAX),
    tenant: o.tenant === undefined ? '' : checkName('tenant', o.tenant),
    cacheSalt: o.cacheSalt === undefined ? '' : checkName('cacheSalt', o.cacheSalt),
    priority: checkInteger('priority', o.priority ?? 0, -INT32_MAX - 1, INT32_MAX),
    deadlineMs: o.deadlineMs === undefined ? 0 : checkInteger('deadlineMs', o.deadlineMs, 1, INT32_MAX),
  };
}

type Penalties = Pick<Sampling, 'repetitionPenalty' | 'presencePenalty' | 'frequencyPenalty'>;

function checkPenalties(o: Given, generation: GenerationDefaults): Penalties {
  const perToken = (what: 'presencePenalty' | 'frequencyPenalty') =>
    checkNumber(
      what,
      o[what] ?? 0,
      (v) => Math.abs(v) <= PENALTY_MAX,
      `a number from -${PENALTY_MAX} to ${PENALTY_MAX}`,
    );
  return {
    repetitionPenalty: checkNumber(
      'repetitionPenalty',
      o.repetitionPenalty ?? generation.repetitionPenalty ?? 1,
      isRepetitionPenalty,
      'a finite number above 0',
    ),
    presencePenalty: perToken('presencePenalty'),
    frequencyPenalty: perToken('frequencyPenalty'),
  };
}

function checkLogitBias(given: unknown, vocabSize: number): Pick<Sampling, 'biasTokens' | 'biasValues'> {
  const entries = given === undefined ? [] : Object.entries(checkObject('logitBias', given));
  if (entries.length > LOGIT_BIAS_COUNT_MAX) {
    const message = `logitBias: got ${entries.length} tokens, wanted at most ${LOGIT_BIAS_COUNT_MAX}`;
    throw new OpenLoraError('ERR_INVALID_OPTION', message, { option: 'logitBias' });
  }
  const biasTokens = new Uint32Array(entries.length);
  const biasValues = new Float32Array(entries.length);
  entries.forEach(([key, value], i) => {
    // An id has one spelling: '01' and '1e1' are none.
    biasTokens[i] = checkToken('logitBias', /^(?:0|[1-9]\d*)$/.test(key) ? Number(key) : key, vocabSize);
    biasValues[i] = checkNumber(
      `logitBias[${key}]`,
      value,
      (v) => Math.abs(v) <= LOGIT_BIAS_MAX || v === -Infinity,
      `a number from -${LOGIT_BIAS_MAX} to ${LOGIT_BIAS_MAX}, or -Infinity`,
    );
  });
  return { biasTokens, biasValues };
}

function checkPrompt(o: Given, rules: RequestRules): CheckedPrompt {
  const kinds = (['prompt', 'messages', 'tokens'] as const).filter((key) => o[key] !== undefined);
  if (kinds.length !== 1) {
    const got = kinds.length === 0 ? 'none' : kinds.join(' and ');
    throw new OpenLoraError('ERR_INVALID_OPTION', `generate: got ${got}, wanted one of prompt, messages, tokens`);
  }
  if (o.tools !== undefined && kinds[0] !== 'messages') invalid('tools', o.tools, 'messages beside it');
  const isParsed = o.parseSpecialTokens;
  if (isParsed !== undefined && kinds[0] === 'tokens') {
    invalid('parseSpecialTokens', isParsed, 'prompt or messages beside it');
  }
  const parseSpecialTokens =
    isParsed === undefined ? kinds[0] === 'prompt' : checkBoolean('parseSpecialTokens', isParsed);
  if (kinds[0] === 'prompt') return { kind: 'text', text: checkPromptText(o.prompt, rules), parseSpecialTokens };
  if (kinds[0] === 'tokens') return { kind: 'tokens', tokens: checkTokens(o.tokens, rules) };
  return {
    kind: 'chat',
    messages: checkConversation(o.messages, rules),
    tools: o.tools === undefined ? undefined : checkTools(o.tools),
    parseSpecialTokens,
  };
}

/** The longest text that is encoded for a context of so many tokens. */
export function textLengthMax(contextLength: number): number {
  return Math.max(2 ** 16, TOKEN_LENGTH_MAX * contextLength);
}

function checkPromptText(value: unknown, rules: RequestRules): string {
  const text = checkText('prompt', value, 0, Number.MAX_SAFE_INTEGER);
  checkTextLength('prompt', text.length, rules);
  return text;
}

function checkConversation(value: unknown, rules: RequestRules): readonly ChatMessage[] {
  const messages = checkMessages(value);
  const lengthOf = ({ content }: ChatMessage): number =>
    typeof content === 'string' ? content.length : (content ?? []).reduce((sum, { text }) => sum + text.length, 0);
  checkTextLength(
    'messages',
    messages.reduce((sum, message) => sum + lengthOf(message), 0),
    rules,
  );
  return messages;
}

function checkTextLength(what: string, length: number, { contextLength }: RequestRules): void {
  const most = textLengthMax(contextLength);
  if (length <= most) return;
  const message = `${what}: got ${length} characters, wanted at most ${most} for the context of ${contextLength} tokens`;
  throw new OpenLoraError('ERR_CONTEXT_LENGTH', message, { length, contextLength });
}

/** A copy: the caller may change the array afterwards. */
function checkTokens(value: unknown, rules: RequestRules): Uint32Array {
  const given = value as ArrayLike<unknown> | null;
  if (typeof given !== 'object' || given === null || !Number.isInteger(given.length) || given.length < 0) {
    invalid('tokens', value, 'an array of token ids');
  }
  // Before the copy: a length may be absurd.
  if (given.length > rules.contextLength) throw contextError(given.length, 'an answer', rules.contextLength);
  const tokens = new Uint32Array(given.length);
  for (let i = 0; i < tokens.length; i++) tokens[i] = checkToken(`tokens[${i}]`, given[i], rules.vocabSize);
  return tokens;
}

function checkToken(what: string, value: unknown, vocabSize: number): number {
  if (typeof value === 'number' && Number.isInteger(value) && value >= 0 && value < vocabSize) return value;
  const message = `${what}: got ${show(value)}, wanted an integer from 0 to ${vocabSize - 1}`;
  throw new OpenLoraError('ERR_TOKEN_RANGE', message, { option: what });
}

/** Also for `renderChat`. */
export function checkMessages(value: unknown): readonly ChatMessage[] {
  if (!Array.isArray(value) || value.length === 0) invalid('messages', value, 'an array of at least one message');
  value.forEach((message: unknown, i) => {
    const { role, content } = checkObject(`messages[${i}]`, message);
    if (typeof role !== 'string') invalid(`messages[${i}].role`, role, 'a string');
    if (typeof content === 'string' || content === null || content === undefined) return;
    if (!Array.isArray(content))
      invalid(`messages[${i}].content`, content, 'a string, an array of text parts, or null');
    content.forEach((part: unknown, j) => {
      const what = `messages[${i}].content[${j}]`;
      const { type, text } = checkObject(what, part);
      if (type !== 'text') invalid(`${what}.type`, type, "'text'");
      if (typeof text !== 'string') invalid(`${what}.text`, text, 'a string');
    });
  });
  return value as readonly ChatMessage[];
}

export function checkTools(value: unknown): readonly Tool[] {
  if (!Array.isArray(value)) invalid('tools', value, 'an array');
  value.forEach((tool: unknown, i) => {
    const { type, function: described } = checkObject(`tools[${i}]`, tool);
    if (type !== 'function') invalid(`tools[${i}].type`, type, "'function'");
    const { name } = checkObject(`tools[${i}].function`, described);
    if (typeof name !== 'string') invalid(`tools[${i}].function.name`, name, 'a string');
  });
  return value as readonly Tool[];
}

function checkAdapter(value: unknown): string | undefined {
  if (value === undefined) return undefined;
  if (!Array.isArray(value)) return checkName('adapter', value);
  if (value.length === 0) return undefined;
  if (value.length > 1) throw notSupportedError(`adapter: a list of ${value.length}`, 'name one adapter');
  const entry = checkObject('adapter[0]', value[0]);
  checkKeys('adapter[0]', entry, { id: 0, weight: 0 });
  const id = checkName('adapter[0].id', entry.id);
  const weight = checkNumber('adapter[0].weight', entry.weight, Number.isFinite, 'a number');
  if (weight !== 1) throw notSupportedError(`adapter: weight ${weight}`, 'only weight 1 is');
  return id;
}

function checkStop(value: unknown): string[] {
  if (value === undefined) return [];
  if (!Array.isArray(value) || value.length > STOP_COUNT_MAX)
    invalid('stop', value, `an array of at most ${STOP_COUNT_MAX} strings`);
  return value.map((text, i) => checkText(`stop[${i}]`, text, 1, STOP_LENGTH_MAX));
}

function checkStopTokens(value: unknown, vocabSize: number): number[] {
  if (value === undefined) return [];
  if (!Array.isArray(value) || value.length > STOP_TOKENS_MAX) {
    invalid('stopTokens', value, `an array of at most ${STOP_TOKENS_MAX} token ids`);
  }
  return value.map((token, i) => checkToken(`stopTokens[${i}]`, token, vocabSize));
}

/** How many tokens a prompt of `input` tokens may be answered with. Throws ERR_CONTEXT_LENGTH. */
export function resolveMaxTokens(input: number, request: CheckedRequest, contextLength: number): number {
  if (input === 0) throw new OpenLoraError('ERR_INVALID_OPTION', 'the prompt has no tokens, wanted at least one');
  const left = contextLength - input;
  const maxTokens = request.maxTokens ?? left;
  if (maxTokens > left || left < 1) {
    throw contextError(input, request.maxTokens === undefined ? 'an answer' : `maxTokens ${maxTokens}`, contextLength);
  }
  const { minTokens } = request.sampling;
  if (minTokens > maxTokens) invalid('minTokens', minTokens, `at most maxTokens, ${maxTokens}`);
  return maxTokens;
}

function contextError(input: number, asked: string, contextLength: number): OpenLoraError {
  const message = `the prompt has ${input} tokens: with ${asked} it doesn't fit in the context of ${contextLength}`;
  return new OpenLoraError('ERR_CONTEXT_LENGTH', message, { input, contextLength });
}
