import { describe, expect, test } from 'vitest';
import type { GenerateRequest, LoadBaseOptions, RegisterOptions } from '../../src/index.js';
import { OpenLoraError } from '../../src/errors.js';
import { CONTEXT, fakeSdk, openFake } from './fake-parts.js';

async function errorOf(action: Promise<unknown>): Promise<OpenLoraError> {
  const error: unknown = await action.then(
    () => new Error('it succeeded'),
    (reason: unknown) => reason,
  );
  if (!OpenLoraError.is(error)) throw error;
  return error;
}

const INVALID = 'ERR_INVALID_OPTION';
const UNKNOWN = 'ERR_UNKNOWN_OPTION';
const LATER = 'ERR_NOT_SUPPORTED';

describe('loadBase refuses', () => {
  const cases: [string, unknown, string, RegExp][] = [
    ['no options', undefined, INVALID, /^loadBase: got undefined, wanted an object$/],
    ['no path', {}, INVALID, /^path: got undefined, wanted a string of 1 to 4096 characters$/],
    ['an empty path', { path: '' }, INVALID, /^path: got "", wanted/],
    [
      'an unknown key',
      { path: 'x', dytpe: 'f32' },
      UNKNOWN,
      /^loadBase: option "dytpe" is unknown; did you mean 'dtype'\?$/,
    ],
    ['a key that is like none', { path: 'x', zzz: 1 }, UNKNOWN, /known are path, device,/],
    ['an unknown key that is undefined', { path: 'x', zzz: undefined }, UNKNOWN, /"zzz"/],
    [
      'an unknown dtype',
      { path: 'x', dtype: 'fp32' },
      INVALID,
      /^dtype: got "fp32", wanted one of auto, f32, bf16, f16, int8, int4$/,
    ],
    [
      'kvDtype int4',
      { path: 'x', kvDtype: 'int4' },
      INVALID,
      /^kvDtype: got "int4", wanted one of auto, f32, bf16, f16, int8$/,
    ],
    [
      'adapterDtype int4',
      { path: 'x', adapterDtype: 'int4' },
      INVALID,
      /^adapterDtype: got "int4", wanted one of auto, int8$/,
    ],
    ['an unknown compute', { path: 'x', compute: 'f16' }, INVALID, /^compute: got "f16", wanted one of f32, bf16$/],
    [
      'compute bf16 with other weights',
      { path: 'x', compute: 'bf16', dtype: 'int8' },
      INVALID,
      /^compute: got "bf16", wanted 'f32' with weights in int8, or dtype 'bf16' beside it$/,
    ],
    ['numerics fast', { path: 'x', numerics: 'fast' }, LATER, /^numerics: 'fast'/],
    [
      'an unknown device',
      { path: 'x', device: 'tpu' },
      INVALID,
      /^device: got "tpu", wanted one of auto, cpu, cuda:0$/,
    ],
    ['a GPU by name', { path: 'x', device: 'cuda:first' }, INVALID, /^device: got "cuda:first", wanted one of/],
    ['an empty cacheDir', { path: 'x', cacheDir: '' }, INVALID, /^cacheDir: got "", wanted a string of 1 to 4096/],
    ['a cacheDir that is a flag', { path: 'x', cacheDir: true }, INVALID, /^cacheDir: got true, wanted a string/],
    ['a cacheDir with a null', { path: 'x', cacheDir: 'a\0b' }, INVALID, /^cacheDir: .*, wanted no null character$/],
    ['a prefixCache in words', { path: 'x', prefixCache: 'off' }, INVALID, /^prefixCache: got "off"/],
    ['an unknown simd', { path: 'x', simd: 'sse' }, INVALID, /^simd: got "sse"/],
    ['threads 0', { path: 'x', threads: 0 }, INVALID, /^threads: got 0, wanted an integer from 1 to 1024$/],
    ['threads as text', { path: 'x', threads: '2' }, INVALID, /^threads: got "2"/],
    ['limits as text', { path: 'x', limits: '8GiB' }, INVALID, /^limits: got "8GiB", wanted an object$/],
    ['an unknown limit', { path: 'x', limits: { maxTokens: 1 } }, UNKNOWN, /^limits: option "maxTokens"/],
    ['hostAdapterMemory', { path: 'x', limits: { hostAdapterMemory: -1 } }, INVALID, /^limits\.hostAdapterMemory/],
    ['adapterCacheDisk', { path: 'x', limits: { adapterCacheDisk: 'all' } }, INVALID, /^limits\.adapterCacheDisk/],
    ['pinnedAdapterMemory', { path: 'x', limits: { pinnedAdapterMemory: 0.5 } }, INVALID, /^limits\.pinnedAdapterM/],
    ['memory in words', { path: 'x', limits: { deviceMemory: 'much' } }, INVALID, /^limits\.deviceMemory: got "much"/],
    ['too little memory', { path: 'x', limits: { deviceMemory: 10 } }, INVALID, /got 10 B, wanted 1 MiB to/],
    ['absurdly much memory', { path: 'x', limits: { deviceMemory: '900TB' } }, INVALID, /got 818\.5 TiB, wanted/],
    ['no context', { path: 'x', limits: { maxContext: 0 } }, INVALID, /^limits\.maxContext: got 0/],
    [
      'an absurd batch',
      { path: 'x', limits: { maxBatchTokens: 1e9 } },
      INVALID,
      /^limits\.maxBatchTokens: got 1000000000/,
    ],
    [
      'no queue of a tenant',
      { path: 'x', limits: { maxQueuedPerTenant: 0 } },
      INVALID,
      /^limits\.maxQueuedPerTenant: got 0/,
    ],
    [
      'no bytes of adapters',
      { path: 'x', limits: { maxBatchLoraBytes: 0 } },
      INVALID,
      /^limits\.maxBatchLoraBytes: got 0/,
    ],
    ['no queue', { path: 'x', limits: { maxQueued: 0 } }, INVALID, /^limits\.maxQueued: got 0/],
    ['strictBase as a number', { path: 'x', strictBase: 1 }, INVALID, /^strictBase: got 1, wanted true or false$/],
    ['a signal that is none', { path: 'x', signal: {} }, INVALID, /^signal: got an object, wanted an AbortSignal$/],
    ['a callback that is none', { path: 'x', onProgress: 5 }, INVALID, /^onProgress: got 5, wanted a function$/],
    ['a logger that is none', { path: 'x', logger: null }, INVALID, /^logger: got null, wanted an object$/],
  ];
  const resolvers: typeof cases = [
    ['a resolver that is none', { path: 'x', adapterResolver: 'x' }, INVALID, /^adapterResolver: got "x", wanted a function$/],
    ['limits of a resolver that are none', { path: 'x', resolverLimits: 5 }, INVALID, /^resolverLimits: got 5/],
    ['an unknown limit of a resolver', { path: 'x', resolverLimits: { timeout: 5 } }, UNKNOWN, /"timeout" is unknown; did you mean 'timeoutMs'/],
    ['a resolver without time', { path: 'x', resolverLimits: { timeoutMs: 0 } }, INVALID, /^resolverLimits\.timeoutMs: got 0, wanted an integer from 1/],
    ['a resolver that may not run', { path: 'x', resolverLimits: { maxConcurrent: 0 } }, INVALID, /^resolverLimits\.maxConcurrent/],
    ['half a miss', { path: 'x', resolverLimits: { maxMisses: 0.5 } }, INVALID, /^resolverLimits\.maxMisses/],
    ['misses of negative time', { path: 'x', resolverLimits: { missTtlMs: -1 } }, INVALID, /^resolverLimits\.missTtlMs/],
    ['no place for what is resolved', { path: 'x', resolverLimits: { maxResolved: 0 } }, INVALID, /^resolverLimits\.maxResolved/],
  ]; // prettier-ignore
  test.each([...cases, ...resolvers])('%s', async (_name, options, code, message) => {
    const { loadBase, tokenizers } = fakeSdk();
    const given = options as LoadBaseOptions;
    const error = await errorOf(given === undefined ? fakeSdkRaw(given) : loadBase({ ...given, path: given.path }));
    expect([error.code, error.message]).toEqual([code, expect.stringMatching(message)]);
    expect(tokenizers).toEqual([]);
  });

  const fakeSdkRaw = async (options: LoadBaseOptions) => {
    const { createLoadBase } = await import('../../src/sdk/load-base.js');
    return createLoadBase({} as never)(options);
  };
});

describe('generate refuses', () => {
  const x = { prompt: 'x' };
  const user = [{ role: 'user', content: 'x' }];
  const cases: [string, unknown, string, RegExp][] = [
    ['no request', undefined, INVALID, /^generate: got undefined, wanted an object$/],
    ['no prompt', {}, INVALID, /^generate: got none, wanted one of prompt, messages, tokens$/],
    ['two prompts', { prompt: 'x', tokens: [1] }, INVALID, /^generate: got prompt and tokens, wanted one/],
    ['an unknown key', { ...x, max_tokens: 5 }, UNKNOWN, /"max_tokens" is unknown; did you mean 'maxTokens'\?/],
    ['a prompt that is no text', { prompt: 5 }, INVALID, /^prompt: got 5, wanted a string/],
    ['an empty prompt', { prompt: '' }, INVALID, /^the prompt has no tokens/],
    ['empty tokens', { tokens: [] }, INVALID, /^the prompt has no tokens/],
    ['tokens that are no array', { tokens: 'abc' }, INVALID, /^tokens: got "abc", wanted an array of token ids$/],
    [
      'a token beyond the vocabulary',
      { tokens: [1, 256] },
      'ERR_TOKEN_RANGE',
      /^tokens\[1\]: got 256, wanted an integer from 0 to 255$/,
    ],
    ['a token that is no integer', { tokens: [1.5] }, 'ERR_TOKEN_RANGE', /^tokens\[0\]: got 1\.5/],
    ['a negative token', { tokens: [-1] }, 'ERR_TOKEN_RANGE', /^tokens\[0\]: got -1/],
    ['an absurd length', { tokens: { length: 2 ** 40 } }, 'ERR_CONTEXT_LENGTH', /^the prompt has 1099511627776 tokens/],
    [
      'a prompt as long as the context',
      { prompt: 'x'.repeat(CONTEXT) },
      'ERR_CONTEXT_LENGTH',
      /has 512 tokens: with an answer it doesn't fit in the context of 512$/,
    ],
    [
      'more tokens than the context has',
      { ...x, maxTokens: CONTEXT },
      'ERR_CONTEXT_LENGTH',
      /has 1 tokens: with maxTokens 512/,
    ],
    ['maxTokens 0', { ...x, maxTokens: 0 }, INVALID, /^maxTokens: got 0, wanted an integer from 1/],
    [
      'minTokens above maxTokens',
      { ...x, maxTokens: 2, minTokens: 3 },
      INVALID,
      /^minTokens: got 3, wanted at most maxTokens, 2$/,
    ],
    [
      'a negative temperature',
      { ...x, temperature: -1 },
      INVALID,
      /^temperature: got -1, wanted a number from 0 to 100$/,
    ],
    ['temperature NaN', { ...x, temperature: NaN }, INVALID, /^temperature: got NaN/],
    ['topK -1', { ...x, topK: -1 }, INVALID, /^topK: got -1, wanted an integer from 0/],
    ['topP 0', { ...x, topP: 0 }, INVALID, /^topP: got 0, wanted a number above 0, at most 1$/],
    ['minP 2', { ...x, minP: 2 }, INVALID, /^minP: got 2/],
    ['an unsafe seed', { ...x, seed: 2 ** 53 }, INVALID, /^seed: got 9007199254740992/],
    ['a seed of another type', { ...x, seed: 5n }, INVALID, /^seed: got 5n/],
    ['stop as text', { ...x, stop: 'x' }, INVALID, /^stop: got "x", wanted an array of at most 16 strings$/],
    ['an empty stop string', { ...x, stop: ['a', ''] }, INVALID, /^stop\[1\]: got ""/],
    [
      'a long stop string',
      { ...x, stop: ['a'.repeat(300)] },
      INVALID,
      /^stop\[0\]: got 300 characters, wanted a string of 1 to 256/,
    ],
    ['many stop strings', { ...x, stop: Array.from({ length: 17 }, () => 'a') }, INVALID, /^stop: got an array of 17/],
    ['a stop token beyond the vocabulary', { ...x, stopTokens: [999] }, 'ERR_TOKEN_RANGE', /^stopTokens\[0\]: got 999/],
    ['ignoreEos as text', { ...x, ignoreEos: 'no' }, INVALID, /^ignoreEos: got "no"/],
    ['21 logprobs', { ...x, logprobs: 21 }, INVALID, /^logprobs: got 21, wanted an integer from 0 to 20$/],
    ['logprobs true', { ...x, logprobs: true }, INVALID, /^logprobs: got true/],
    ['promptLogprobs -1', { ...x, promptLogprobs: -1 }, INVALID, /^promptLogprobs: got -1/],
    ['a fraction of a priority', { ...x, priority: 0.5 }, INVALID, /^priority: got 0\.5/],
    ['deadlineMs 0', { ...x, deadlineMs: 0 }, INVALID, /^deadlineMs: got 0/],
    ['an empty tenant', { ...x, tenant: '' }, INVALID, /^tenant: got ""/],
    ['a tenant with a control character', { ...x, tenant: 'a\0b' }, INVALID, /wanted no control characters$/],
    ['an adapter that is no name', { ...x, adapter: 5 }, INVALID, /^adapter: got 5/],
    [
      'two adapters',
      {
        ...x,
        adapter: [
          { id: 'a', weight: 1 },
          { id: 'b', weight: 1 },
        ],
      },
      LATER,
      /^adapter: a list of 2/,
    ],
    ['a weight', { ...x, adapter: [{ id: 'a', weight: 0.5 }] }, LATER, /^adapter: weight 0\.5/],
    ['a weight that is none', { ...x, adapter: [{ id: 'a' }] }, INVALID, /^adapter\[0\]\.weight: got undefined/],
    [
      'an unknown key of an adapter',
      { ...x, adapter: [{ id: 'a', weight: 1, w: 1 }] },
      UNKNOWN,
      /^adapter\[0\]: option "w"/,
    ],
    [
      'repetitionPenalty 0',
      { ...x, repetitionPenalty: 0 },
      INVALID,
      /^repetitionPenalty: got 0, wanted a finite number above 0$/,
    ],
    ['repetitionPenalty -1', { ...x, repetitionPenalty: -1 }, INVALID, /^repetitionPenalty: got -1/],
    ['repetitionPenalty Infinity', { ...x, repetitionPenalty: Infinity }, INVALID, /^repetitionPenalty: got Infinity/],
    ['repetitionPenalty NaN', { ...x, repetitionPenalty: NaN }, INVALID, /^repetitionPenalty: got NaN/],
    ['one that is 0 in float32', { ...x, repetitionPenalty: 1e-60 }, INVALID, /^repetitionPenalty: got 1e-60/],
    ['one that is infinite in float32', { ...x, repetitionPenalty: 1e60 }, INVALID, /^repetitionPenalty: got 1e\+60/],
    [
      'presencePenalty 2.1',
      { ...x, presencePenalty: 2.1 },
      INVALID,
      /^presencePenalty: got 2\.1, wanted a number from -2 to 2$/,
    ],
    ['presencePenalty NaN', { ...x, presencePenalty: NaN }, INVALID, /^presencePenalty: got NaN/],
    ['frequencyPenalty -3', { ...x, frequencyPenalty: -3 }, INVALID, /^frequencyPenalty: got -3, wanted a number from/],
    ['frequencyPenalty as text', { ...x, frequencyPenalty: '1' }, INVALID, /^frequencyPenalty: got "1"/],
    ['a bias that is no object', { ...x, logitBias: [1] }, INVALID, /^logitBias: got an array of 1, wanted an object$/],
    [
      'a bias beyond the vocabulary',
      { ...x, logitBias: { 256: 1 } },
      'ERR_TOKEN_RANGE',
      /^logitBias: got 256, wanted an integer from 0 to 255$/,
    ],
    ['a bias of a text', { ...x, logitBias: { hello: 1 } }, 'ERR_TOKEN_RANGE', /^logitBias: got "hello", wanted an/],
    ['a bias of an id spelled oddly', { ...x, logitBias: { '05': 1 } }, 'ERR_TOKEN_RANGE', /^logitBias: got "05"/],
    ['a bias of a negative id', { ...x, logitBias: { '-1': 1 } }, 'ERR_TOKEN_RANGE', /^logitBias: got "-1"/],
    [
      'a bias of 101',
      { ...x, logitBias: { 5: 101 } },
      INVALID,
      /^logitBias\[5\]: got 101, wanted a number from -100 to 100, or -Infinity$/,
    ],
    ['a bias of Infinity', { ...x, logitBias: { 5: Infinity } }, INVALID, /^logitBias\[5\]: got Infinity/],
    ['a bias of NaN', { ...x, logitBias: { 5: NaN } }, INVALID, /^logitBias\[5\]: got NaN/],
    ['a bias that is undefined', { ...x, logitBias: { 5: undefined } }, INVALID, /^logitBias\[5\]: got undefined/],
    [
      'more biases than 4096',
      { ...x, logitBias: Object.fromEntries(Array.from({ length: 4097 }, (_, i) => [i, 1])) },
      INVALID,
      /^logitBias: got 4097 tokens, wanted at most 4096$/,
    ],
    ['an empty cacheSalt', { ...x, cacheSalt: '' }, INVALID, /^cacheSalt: got "", wanted a string of 1 to 256/],
    ['a cacheSalt that is a number', { ...x, cacheSalt: 7 }, INVALID, /^cacheSalt: got 7, wanted a string/],
    [
      'no messages',
      { messages: [] },
      INVALID,
      /^messages: got an array of 0, wanted an array of at least one message$/,
    ],
    ['a message that is none', { messages: ['hi'] }, INVALID, /^messages\[0\]: got "hi", wanted an object$/],
    ['a message without a role', { messages: [{ content: 'x' }] }, INVALID, /^messages\[0\]\.role: got undefined/],
    [
      'an image',
      { messages: [{ role: 'user', content: [{ type: 'image_url' }] }] },
      INVALID,
      /^messages\[0\]\.content\[0\]\.type: got "image_url", wanted 'text'$/,
    ],
    [
      'parseSpecialTokens beside tokens',
      { tokens: [1], parseSpecialTokens: true },
      INVALID,
      /^parseSpecialTokens: got true, wanted prompt or messages beside it$/,
    ],
    ['parseSpecialTokens as text', { ...x, parseSpecialTokens: 'yes' }, INVALID, /^parseSpecialTokens: got "yes"/],
    ['tools without messages', { ...x, tools: [] }, INVALID, /^tools: got an array of 0, wanted messages beside it$/],
    [
      'a tool that is none',
      { messages: user, tools: [{ type: 'function' }] },
      INVALID,
      /^tools\[0\]\.function: got undefined/,
    ],
    ['a signal that is none', { ...x, signal: 5 }, INVALID, /^signal: got 5, wanted an AbortSignal$/],
  ];
  test.each(cases)('%s', async (_name, request, code, message) => {
    const { base, engine } = await openFake();
    const neighbour = base.generate({ prompt: 'ab', maxTokens: 20 });
    const error = await errorOf(base.generate(request as GenerateRequest).result);
    expect([error.code, error.message]).toEqual([code, expect.stringMatching(message)]);
    expect(await neighbour.text()).toBe('ab'.repeat(10));
    expect(engine.submitted).toHaveLength(1);
    await base.dispose();
  });

  test('one request more than limits.maxQueued, and takes the next when one has ended', async () => {
    const { base } = await openFake({}, { limits: { maxQueued: 2 } });
    const running = [1, 2].map(() => base.generate({ prompt: 'ab', maxTokens: 2 }));
    const error = await errorOf(base.generate({ prompt: 'ab', maxTokens: 2 }).result);
    expect([error.code, error.retryable]).toEqual(['ERR_OVERLOADED', true]);
    await Promise.all(running.map(({ result }) => result));
    expect(await base.generate({ prompt: 'ab', maxTokens: 2 }).text()).toBe('ab');
    await base.dispose();
  });
});

const CONFIG = 'ERR_ADAPTER_CONFIG';
const bytes = new Uint8Array(8);
const circle: Record<string, unknown> = {};
circle.r = circle;

describe('registerAdapter refuses', () => {
  const cases: [string, unknown, unknown, unknown, string, RegExp][] = [
    ['no id', undefined, 'x', undefined, INVALID, /^id: got undefined/],
    ['an empty id', '', 'x', undefined, INVALID, /^id: got ""/],
    ['no source', 'a', undefined, undefined, INVALID, /^source: got undefined/],
    [
      'files without a config',
      'a',
      { tensors: new Uint8Array() },
      undefined,
      INVALID,
      /^source\.config: got undefined/,
    ],
    [
      'a config that is a list',
      'a',
      { config: [], tensors: bytes },
      undefined,
      INVALID,
      /^source\.config: got an array/,
    ],
    [
      'a config that is no JSON',
      'a',
      { config: { r: NaN }, tensors: bytes },
      undefined,
      CONFIG,
      /r is NaN, which JSON/,
    ],
    [
      'a config with a big integer',
      'a',
      { config: { r: 8n }, tensors: bytes },
      undefined,
      CONFIG,
      /is not JSON: .*BigInt/,
    ],
    ['a config in a circle', 'a', { config: circle, tensors: bytes }, undefined, CONFIG, /is not JSON: .*circular/],
    [
      'a config that hides',
      'a',
      { config: { toJSON: () => undefined }, tensors: bytes },
      undefined,
      INVALID,
      /^source/,
    ],
    [
      'a config with a function',
      'a',
      { config: { r: Math.abs }, tensors: bytes },
      undefined,
      CONFIG,
      /^source\.config/,
    ],
    [
      'a config of 4 MiB',
      'a',
      { config: { r: ' '.repeat(4 << 20) }, tensors: bytes },
      undefined,
      CONFIG,
      /has 4194312/,
    ],
    ['files without tensors', 'a', { config: {} }, undefined, INVALID, /^source\.tensors: got undefined/],
    [
      'tensors that are a buffer',
      'a',
      { config: {}, tensors: new ArrayBuffer(8) },
      undefined,
      INVALID,
      /a Uint8Array or/,
    ],
    ['tensors that are text', 'a', { config: {}, tensors: 'x' }, undefined, INVALID, /^source\.tensors: got "x"/],
    [
      'tensors that are a list',
      'a',
      { config: {}, tensors: [bytes] },
      undefined,
      INVALID,
      /^source\.tensors: got an array/,
    ],
    [
      'a template that is no text',
      'a',
      { config: {}, tensors: bytes, chatTemplate: 1 },
      undefined,
      INVALID,
      /chatTemplate/,
    ],
    [
      'an unknown file',
      'a',
      { config: {}, tensors: bytes, tokenizer: {} },
      undefined,
      UNKNOWN,
      /^source: option "tokeni/,
    ],
    ['an unknown key', 'a', 'x', { weight: 1 }, UNKNOWN, /^registerAdapter: option "weight"/],
    ['a pin that is a number', 'a', 'x', { pin: 1 }, INVALID, /^pin: got 1, wanted true or false$/],
    ['an unknown preload', 'a', 'x', { preload: 'gpu' }, INVALID, /^preload: got "gpu"/],
    [
      'a short generation',
      'a',
      'x',
      { expectedGeneration: 'abc' },
      INVALID,
      /^expectedGeneration: got "abc", wanted 64/,
    ],
    ['no generation', 'a', 'x', { expectedGeneration: '' }, INVALID, /^expectedGeneration: got "", wanted .* or null$/],
    ['a generation in capitals', 'a', 'x', { expectedGeneration: 'A'.repeat(64) }, INVALID, /^expectedGeneration/],
  ];
  test.each(cases)('%s', async (_name, id, source, options, code, message) => {
    const { base } = await openFake();
    const error = await errorOf(base.registerAdapter(id as string, source as string, options as RegisterOptions));
    expect([error.code, error.message]).toEqual([code, expect.stringMatching(message)]);
    await base.registerAdapter('a', 'x', { pin: false, preload: 'none' });
    await base.dispose();
  });
});

describe('the other calls refuse', () => {
  test('unknown keys and wrong values', async () => {
    const { base } = await openFake();
    const message = [{ role: 'user', content: 'x' }];
    const bad = <T>(value: unknown) => value as T;
    const calls: [string, () => unknown][] = [
      [UNKNOWN, () => base.unregisterAdapter('a', bad({ force: true }))],
      [INVALID, () => base.unregisterAdapter('a', bad({ drain: 1 }))],
      [UNKNOWN, () => base.renderChat(message, bad({ template: 'x' }))],
      [INVALID, () => base.renderChat(bad('hi'))],
      [INVALID, () => base.renderChat(message, bad({ addGenerationPrompt: 'yes' }))],
      [UNKNOWN, () => base.tokenizer.encode('x', bad({ special: 1 }))],
      [INVALID, () => base.tokenizer.encode(bad(5))],
      [INVALID, () => base.tokenizer.decode([1], bad({ skipSpecialTokens: 1 }))],
      [INVALID, () => base.adapters.get(bad(5))],
      [UNKNOWN, () => base.prefetch('a', bad({ to: 'host' }))],
      [INVALID, () => base.prefetch(bad(5))],
      ['ERR_ADAPTER_NOT_FOUND', () => base.prefetch('nobody')],
    ];
    for (const [code, call] of calls) expect((await errorOf((async () => call())())).code).toBe(code);
    await base.dispose();
  });
});
