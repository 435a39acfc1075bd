// Requests and calls that a base has to refuse.

import type { GenerateRequest, RegisterOptions } from '../../../src/index.js';
import type { BadInput } from './bad-input.js';
import { SIZES } from './tiny-checkpoint.js';

const asks =
  (request: unknown): BadInput[3] =>
  ({ base }) =>
    base.generate(request as GenerateRequest).result;
const hi = (changes: Record<string, unknown>) => asks({ prompt: 'hi', maxTokens: 4, ...changes });
const tokens = (list: unknown) => asks({ tokens: list, maxTokens: 4 });
const CONTEXT = 512;

const PROMPTS: BadInput[] = [
  ['nothing', 'INVALID_OPTION', /generate: got undefined, wanted an object/, asks(undefined)],
  ['no prompt', 'INVALID_OPTION', /got none, wanted one of prompt, messages, tokens/, asks({ maxTokens: 4 })],
  ['two prompts', 'INVALID_OPTION', /got prompt and tokens/, hi({ tokens: [5] })],
  ['a prompt that is a number', 'INVALID_OPTION', /prompt: got 5, wanted a string/, asks({ prompt: 5 })],
  ['no tokens', 'INVALID_OPTION', /no tokens, wanted at least one/, tokens([])],
  ['tokens that are text', 'INVALID_OPTION', /tokens: got "abc", wanted an array/, tokens('abc')],
  ['an array of an absurd length', 'CONTEXT_LENGTH', /1152921504606847000 tokens.*context of 512/, tokens({ length: 2 ** 60 })],
  ['an array of a negative length', 'INVALID_OPTION', /tokens: got an object, wanted an array/, tokens({ length: -1 })],
  ['a token beyond the vocabulary', 'TOKEN_RANGE', /tokens\[1\]: got 260, wanted an integer from 0 to 259/, tokens([5, SIZES.vocab])],
  ['a token of -1', 'TOKEN_RANGE', /tokens\[0\]: got -1/, tokens([-1])],
  ['a token of 2^32 + 5', 'TOKEN_RANGE', /got 4294967301/, tokens([2 ** 32 + 5])],
  ['half a token', 'TOKEN_RANGE', /got 1\.5/, tokens([1.5])],
  ['a token of NaN', 'TOKEN_RANGE', /got NaN/, tokens([NaN])],
  ['a token of text', 'TOKEN_RANGE', /got "5"/, tokens(['5'])],
  ['a hole', 'TOKEN_RANGE', /got undefined/, tokens([5, , 5])], // eslint-disable-line no-sparse-arrays
  ['tokens over the context', 'CONTEXT_LENGTH', /513 tokens.*context of 512/, tokens(Array(CONTEXT + 1).fill(5))],
  ['tokens that fill the context', 'CONTEXT_LENGTH', /512 tokens.*context of 512/, tokens(Array(CONTEXT).fill(5))],
  ['tokens that leave too little', 'CONTEXT_LENGTH', /509 tokens: with maxTokens 4 .*context of 512/, tokens(Array(CONTEXT - 3).fill(5))],
  ['text over the context', 'CONTEXT_LENGTH', /601 tokens.*context of 512/, hi({ prompt: 'x'.repeat(600) })],
  ['text of 17 million characters', 'CONTEXT_LENGTH', /prompt: got 17000000 characters, wanted at most 65536 for the context of 512/, hi({ prompt: 'x'.repeat(17_000_000) })],
  ['no messages', 'INVALID_OPTION', /messages: got an array of 0, wanted/, asks({ messages: [] })],
  ['a message without a role', 'INVALID_OPTION', /messages\[0\]\.role: got undefined, wanted a string/, asks({ messages: [{ content: 'x' }] })],
  ['a message that is an image', 'INVALID_OPTION', /messages\[0\]\.content\[0\]\.type/, asks({ messages: [{ role: 'user', content: [{ type: 'image' }] }] })],
  ['messages of 17 million characters', 'CONTEXT_LENGTH', /messages: got 17000000 characters, wanted at most 65536/, asks({ messages: [{ role: 'user', content: 'x'.repeat(17_000_000) }] })],
  ['a message that is a function', 'CHAT_TEMPLATE', /plain data/, asks({ messages: [{ role: 'user', content: 'x', name: () => 1 }] })],
  ['tools without messages', 'INVALID_OPTION', /tools: got an array of 0, wanted messages/, hi({ tools: [] })],
]; // prettier-ignore

const OPTIONS: BadInput[] = [
  ['an unknown option', 'UNKNOWN_OPTION', /"max_tokens" is unknown; did you mean 'maxTokens'/, hi({ max_tokens: 4 })],
  ['an unknown option that is undefined', 'UNKNOWN_OPTION', /"nucleus" is unknown; known are/, hi({ nucleus: undefined })],
  ...[0, -1, NaN, Infinity, 1e-60, '1'].map((repetitionPenalty): BadInput => [`repetitionPenalty ${repetitionPenalty}`, 'INVALID_OPTION', /repetitionPenalty: got .*, wanted a finite number above 0/, hi({ repetitionPenalty })]),
  ...[-2.01, 3, NaN].map((presencePenalty): BadInput => [`presencePenalty ${presencePenalty}`, 'INVALID_OPTION', /presencePenalty: got .*, wanted a number from -2 to 2/, hi({ presencePenalty })]),
  ...[-2.01, 3, NaN].map((frequencyPenalty): BadInput => [`frequencyPenalty ${frequencyPenalty}`, 'INVALID_OPTION', /frequencyPenalty: got .*, wanted a number from -2 to 2/, hi({ frequencyPenalty })]),
  ...[-101, NaN, Infinity, '1'].map((bias): BadInput => [`a bias of ${bias}`, 'INVALID_OPTION', /logitBias\[5\]: got .*, wanted a number from -100 to 100, or -Infinity/, hi({ logitBias: { 5: bias } })]),
  ...['x', '-1', '1e9', 2 ** 40].map((token): BadInput => [`a bias of the token ${token}`, 'TOKEN_RANGE', /logitBias: got .*, wanted an integer from 0 to/, hi({ logitBias: { [token]: 1 } })]),
  ...[0, -1, 1.5, NaN, Infinity, 2 ** 60, '4', null].map((maxTokens): BadInput => [`maxTokens ${maxTokens}`, 'INVALID_OPTION', /maxTokens: got .*, wanted an integer from 1/, hi({ maxTokens })]),
  ['maxTokens over the context', 'CONTEXT_LENGTH', /maxTokens 2147483647 .*context of 512/, hi({ maxTokens: 2 ** 31 - 1 })],
  ['minTokens over maxTokens', 'INVALID_OPTION', /minTokens: got 5, wanted at most maxTokens, 4/, hi({ minTokens: 5 })],
  ...[-0.1, NaN, Infinity, 101, '1'].map((temperature): BadInput => [`temperature ${temperature}`, 'INVALID_OPTION', /temperature: got .*, wanted a number from 0 to 100/, hi({ temperature })]),
  ...[-1, 0.5, NaN, 2 ** 60].map((topK): BadInput => [`topK ${topK}`, 'INVALID_OPTION', /topK: got .*, wanted an integer/, hi({ topK })]),
  ...[0, -1, 1.01, NaN].map((topP): BadInput => [`topP ${topP}`, 'INVALID_OPTION', /topP: got .*, wanted a number above 0/, hi({ topP })]),
  ...[-1, 2, NaN].map((minP): BadInput => [`minP ${minP}`, 'INVALID_OPTION', /minP: got .*, wanted a number from 0 to 1/, hi({ minP })]),
  ...[-1, 0.5, NaN, 2 ** 60].map((seed): BadInput => [`seed ${seed}`, 'INVALID_OPTION', /seed: got .*, wanted an integer/, hi({ seed })]),
  ...[-1, 21, NaN, 2 ** 60].map((logprobs): BadInput => [`logprobs ${logprobs}`, 'INVALID_OPTION', /logprobs: got .*, wanted an integer from 0 to 20/, hi({ logprobs })]),
  ['promptLogprobs 21', 'INVALID_OPTION', /promptLogprobs: got 21/, hi({ promptLogprobs: 21 })],
  ...[0, -1, NaN, 2 ** 60].map((deadlineMs): BadInput => [`deadlineMs ${deadlineMs}`, 'INVALID_OPTION', /deadlineMs: got .*, wanted an integer/, hi({ deadlineMs })]),
  ['a priority of 2^60', 'INVALID_OPTION', /priority: got/, hi({ priority: 2 ** 60 })],
  ['an empty stop string', 'INVALID_OPTION', /stop\[0\]: got "", wanted a string of 1 to 256/, hi({ stop: [''] })],
  ['17 stop strings', 'INVALID_OPTION', /stop: got an array of 17, wanted an array of at most 16/, hi({ stop: Array(17).fill('x') })],
  ['a stop string that is no list', 'INVALID_OPTION', /stop: got "x", wanted an array/, hi({ stop: 'x' })],
  ['a stop token beyond the vocabulary', 'TOKEN_RANGE', /stopTokens\[0\]: got 260/, hi({ stopTokens: [260] })],
  ['an adapter that nobody registered', 'ADAPTER_NOT_FOUND', /'nobody' is not registered/, hi({ adapter: 'nobody' })],
  ["another tenant's adapter", 'ADAPTER_NOT_FOUND', /'owned' is not registered for tenant 'b'/, hi({ adapter: 'owned', tenant: 'b' })],
  ["a tenant's adapter, without the tenant", 'ADAPTER_NOT_FOUND', /'owned' is not registered/, hi({ adapter: 'owned' })],
  ['an adapter with a control character', 'INVALID_OPTION', /adapter: got .*, wanted no control/, hi({ adapter: 'a\u0000b' })],
  ['two adapters', 'NOT_SUPPORTED', /a list of 2/, hi({ adapter: [{ id: 'a', weight: 1 }, { id: 'b', weight: 1 }] })],
  ['half an adapter', 'NOT_SUPPORTED', /weight 0\.5/, hi({ adapter: [{ id: 'good', weight: 0.5 }] })],
  ['a signal that is none', 'INVALID_OPTION', /signal: got an object, wanted an AbortSignal/, hi({ signal: {} })],
  ['a signal that is aborted', 'ABORTED', /aborted/, hi({ signal: AbortSignal.abort() })],
  ['a deadline that passes', 'DEADLINE', /deadline/, hi({ deadlineMs: 1, maxTokens: 400, ignoreEos: true })],
]; // prettier-ignore

const CALLS: BadInput[] = [
  ['registering under a taken id that has to be free', 'ADAPTER_GENERATION', /'good' is of generation [0-9a-f]{64}, expectedGeneration wanted no adapter/, ({ base, files }) => base.registerAdapter('good', files.adapters[0]!, { expectedGeneration: null })],
  ['registering under no id', 'INVALID_OPTION', /id: got "", wanted a string of 1 to 256/, ({ base, files }) => base.registerAdapter('', files.adapters[0]!)],
  ['registering no path', 'INVALID_OPTION', /source: got 5, wanted a string/, ({ base }) => base.registerAdapter('x', 5 as never)],
  ['registering with an unknown option', 'UNKNOWN_OPTION', /"pins" is unknown; did you mean 'pin'/, ({ base, files }) => base.registerAdapter('x', files.adapters[0]!, { pins: true } as RegisterOptions)],
  ['unregistering what is not there', 'ADAPTER_NOT_FOUND', /'nobody' is not registered/, ({ base }) => base.unregisterAdapter('nobody')],
  ["unregistering a tenant's adapter for all", 'ADAPTER_NOT_FOUND', /'owned' is not registered/, ({ base }) => base.unregisterAdapter('owned')],
  ['asking for what was unregistered', 'ADAPTER_NOT_FOUND', /'brief' is not registered/, async ({ base, files }) => {
    await base.registerAdapter('brief', files.adapters[2]!);
    await base.unregisterAdapter('brief');
    await base.generate({ prompt: 'hi', adapter: 'brief' }).result;
  }],
  ['prefetching nobody', 'ADAPTER_NOT_FOUND', /'nobody' is not registered/, ({ base }) => base.prefetch('nobody')],
  ['encoding a number', 'INVALID_OPTION', /text: got 5, wanted a string/, ({ base }) => base.tokenizer.encode(5 as never)],
  ['encoding 17 million characters', 'INVALID_OPTION', /text: got 17000000 characters, wanted/, ({ base }) => base.tokenizer.encode('x'.repeat(17_000_000))],
  ['decoding a token beyond the vocabulary', 'TOKEN_RANGE', /ids\[0\] is 260, wanted/, async ({ base }) => base.tokenizer.decode([260])],
  ['rendering no messages', 'INVALID_OPTION', /messages: got an array of 0/, async ({ base }) => base.renderChat([])],
]; // prettier-ignore

const coded = ([name, kind, ...rest]: BadInput): BadInput => [name, `ERR_${kind}`, ...rest];
export const BAD_REQUESTS: BadInput[] = [...PROMPTS, ...OPTIONS, ...CALLS].map(coded);
