import { afterEach, describe, expect, test } from 'vitest';
import type { Base, Chunk, GenerateRequest, Generation } from '../../src/index.js';
import { UNREAD_TOKENS_MAX } from '../../src/sdk/generation.js';
import type { FakeEngine, FakeOptions, ScriptedAnswer } from './fake-native.js';
import { codeOf, CONTEXT, fakeFolder, openFake, turns } from './fake-parts.js';

let opened: { base: Base; engine: FakeEngine }[] = [];

async function open(options: FakeOptions = {}, folder = fakeFolder()) {
  const fake = await openFake(options, {}, folder);
  opened.push(fake);
  return fake;
}

afterEach(async () => {
  for (const { base, engine } of opened) {
    await base.dispose();
    expect(engine.violations).toEqual([]);
  }
  opened = [];
});

const endless: GenerateRequest = { prompt: 'ab', maxTokens: 400 };

async function chunksOf(generation: Generation): Promise<Chunk[]> {
  const chunks: Chunk[] = [];
  for await (const chunk of generation) chunks.push(chunk);
  return chunks;
}

const say = (...texts: string[]): ScriptedAnswer => ({ tokens: texts.map((text, i) => ({ token: 65 + i, text })) });

describe('a generation that is read', () => {
  test('gives chunks whose texts and tokens join to the result', async () => {
    const { base } = await open({ answer: () => ({ ...say('one', '', ' two', 'ü'), tail: '.' }) });
    const generation = base.generate({ prompt: 'x' });
    const chunks = await chunksOf(generation);
    const result = await generation.result;
    expect(chunks.map(({ text }) => text).join('')).toBe('one twoü.');
    expect(chunks.flatMap(({ tokens }) => tokens)).toEqual([65, 66, 67, 68]);
    expect(result).toMatchObject({ text: 'one twoü.', tokens: [65, 66, 67, 68], finishReason: 'eos' });
    expect(result.usage).toEqual({ input: 1, output: 4, cachedInput: 0 });
    expect(result.timing).toEqual({ queuedMs: 1, adapterLoadMs: 2, ttftMs: 3, tpotMs: 4 });
    expect(result).not.toHaveProperty('logprobs');
  });

  test('ends by its result alone', async () => {
    const { base, engine } = await open();
    const result = await base.generate({ prompt: 'ab', maxTokens: 300 }).result;
    expect(result.tokens).toHaveLength(300);
    expect(result.finishReason).toBe('length');
    expect(engine.calls.filter((call) => call.startsWith('pause'))).toEqual([]);
  });

  test('gives its text by text(), before, while and after it is iterated over', async () => {
    const { base } = await open();
    const generation = base.generate({ prompt: 'ab', maxTokens: 5 });
    const before = generation.text();
    await chunksOf(generation);
    expect([await before, await generation.text()]).toEqual(['ababa', 'ababa']);
  });

  test('is no thenable', async () => {
    const { base } = await open();
    const generation = base.generate({ prompt: 'ab', maxTokens: 3 });
    expect(await (generation as unknown)).toBe(generation);
    expect(await generation.text()).toBe('aba');
  });

  test('merges what arrived meanwhile into one chunk, also after the end', async () => {
    const { base } = await open();
    const generation = base.generate({ prompt: 'ab', maxTokens: 5 });
    await generation.result;
    expect(await chunksOf(generation)).toEqual([{ text: 'ababa', tokens: [97, 98, 97, 98, 97] }]);
  });

  test('answers several next() calls in their order', async () => {
    const { base, engine } = await open({ isManual: false, answer: () => say('a', 'b', 'c') });
    const iterator = base.generate({ prompt: 'x' })[Symbol.asyncIterator]();
    const steps = await Promise.all([
      iterator.next(),
      iterator.next(),
      iterator.next(),
      iterator.next(),
      iterator.next(),
    ]);
    expect(steps.map(({ value }) => (value as Chunk | undefined)?.text)).toEqual(['a', 'b', 'c', undefined, undefined]);
    expect(steps.map(({ done }) => done)).toEqual([false, false, false, true, true]);
    expect(engine.requests.size).toBe(0);
  });

  test('refuses a second iterator, and the first goes on', async () => {
    const { base } = await open();
    const generation = base.generate({ prompt: 'ab', maxTokens: 3 });
    const first = generation[Symbol.asyncIterator]();
    expect(await codeOf(generation[Symbol.asyncIterator]().next())).toBe('ERR_ITERATOR_TAKEN');
    expect((await first.next()).done).toBe(false);
    expect(await generation.text()).toBe('aba');
  });

  test('carries log-probabilities of its tokens and of its prompt', async () => {
    const top = [{ token: 65, logprob: -0.5 }];
    const { base, engine } = await open({
      answer: () => ({
        tokens: [{ token: 65, text: 'A', logprob: -0.5, top }],
        promptLogprobs: [{ token: 98, text: '', logprob: -1.5, top: [] }],
      }),
    });
    const generation = base.generate({ prompt: 'ab', logprobs: 1, promptLogprobs: 0 });
    const [chunk] = await chunksOf(generation);
    const result = await generation.result;
    expect(chunk).toEqual({ text: 'A', tokens: [65], logprobs: [{ token: 65, logprob: -0.5, top }] });
    expect(result.logprobs).toEqual(chunk!.logprobs);
    expect(result.promptLogprobs).toEqual([{ token: 98, logprob: -1.5, top: [] }]);
    expect(engine.submitted[0]).toMatchObject({ logprobs: 1, promptLogprobs: 0 });
  });
});

describe('a generation that is ended by its caller', () => {
  test('by break: the result is what arrived, cancelled', async () => {
    const { base, engine } = await open();
    const generation = base.generate(endless);
    for await (const chunk of generation) if (chunk.text !== '') break;
    const result = await generation.result;
    expect(result.finishReason).toBe('cancelled');
    expect(result.tokens.length).toBeLessThan(10);
    expect(result.usage.output).toBe(result.tokens.length);
    expect(engine.calls).toContain('cancel 1');
  });

  test('by throwing out of the loop', async () => {
    const { base } = await open();
    const generation = base.generate(endless);
    const loop = async () => {
      for await (const _ of generation) throw new Error('mine');
    };
    await expect(loop()).rejects.toThrow('mine');
    expect((await generation.result).finishReason).toBe('cancelled');
  });

  test('by cancel(), while somebody iterates: the loop ends without an error', async () => {
    const { base } = await open();
    const generation = base.generate(endless);
    const chunks: Chunk[] = [];
    for await (const chunk of generation) {
      chunks.push(chunk);
      if (chunks.length === 3) generation.cancel('enough');
    }
    const result = await generation.result;
    expect(result.finishReason).toBe('cancelled');
    expect(chunks.map(({ text }) => text).join('')).toBe(result.text);
  });

  test('by cancel() before the prompt is encoded: it never reaches the engine', async () => {
    const { base, engine } = await open();
    const generation = base.generate(endless);
    generation.cancel();
    expect(await generation.result).toMatchObject({
      text: '',
      finishReason: 'cancelled',
      usage: { input: 0, output: 0 },
    });
    await turns(5);
    expect(engine.submitted).toEqual([]);
    expect(await chunksOf(generation)).toEqual([]);
  });

  test('by cancel() after the end: nothing changes', async () => {
    const { base } = await open();
    const generation = base.generate({ prompt: 'ab', maxTokens: 2 });
    await generation.result;
    generation.cancel();
    expect((await generation.result).finishReason).toBe('length');
  });

  test('by `await using`: disposing resolves when the engine is done with it', async () => {
    const { base, engine } = await open();
    let generation: Generation;
    {
      await using scoped = base.generate(endless);
      generation = scoped;
      await turns(10);
      expect(engine.requests.size).toBe(1);
    }
    expect(engine.requests.size).toBe(0);
    expect((await generation.result).finishReason).toBe('cancelled');
  });

  test('while it is paused', async () => {
    const { base, engine } = await open();
    const generation = base.generate(endless);
    const iterator = generation[Symbol.asyncIterator]();
    await iterator.next();
    await turns(UNREAD_TOKENS_MAX + 20);
    expect(engine.calls).toContain('pause 1 true');
    await iterator.return!();
    expect((await generation.result).finishReason).toBe('cancelled');
    expect((await iterator.next()).done).toBe(true);
  });
});

describe('an aborted signal', () => {
  test('rejects before anything began', async () => {
    const { base, engine } = await open();
    const generation = base.generate({ ...endless, signal: AbortSignal.abort('why') });
    await expect(generation.result).rejects.toMatchObject({ code: 'ERR_ABORTED', cause: 'why' });
    expect(await codeOf(chunksOf(generation))).toBe('ERR_ABORTED');
    await turns(5);
    expect(engine.submitted).toEqual([]);
  });

  test('rejects while the prompt is encoded', async () => {
    const { base, engine, tokenizer } = await open();
    tokenizer.isHeld = true;
    const controller = new AbortController();
    const generation = base.generate({ ...endless, signal: controller.signal });
    await turns(3);
    controller.abort();
    expect(await codeOf(generation.result)).toBe('ERR_ABORTED');
    tokenizer.isHeld = false;
    await base.drain();
    expect(engine.submitted).toEqual([]);
  });

  test('rejects at once while tokens come, drops what was unread, and frees the engine', async () => {
    const { base, engine } = await open();
    const controller = new AbortController();
    const generation = base.generate({ ...endless, signal: controller.signal });
    const iterator = generation[Symbol.asyncIterator]();
    await iterator.next();
    await turns(5);
    controller.abort(new Error('gone'));
    expect(await codeOf(() => iterator.next())).toBe('ERR_ABORTED');
    expect((await iterator.next()).done).toBe(true);
    expect(await codeOf(generation.result)).toBe('ERR_ABORTED');
    await base.drain();
    expect(engine.requests.size).toBe(0);
  });

  test('rejects a next() that waits', async () => {
    const { base, tokenizer } = await open();
    tokenizer.isHeld = true;
    const controller = new AbortController();
    const generation = base.generate({ ...endless, signal: controller.signal });
    const waiting = generation[Symbol.asyncIterator]().next();
    controller.abort();
    expect(await codeOf(waiting)).toBe('ERR_ABORTED');
  });

  test('is shared by many requests without a warning, and ends those that run', async () => {
    const { base } = await open();
    const warnings: Error[] = [];
    const onWarning = (warning: Error) => warnings.push(warning);
    process.on('warning', onWarning);
    const controller = new AbortController();
    const { signal } = controller;
    const short = Array.from({ length: 50 }, () => base.generate({ prompt: 'ab', maxTokens: 2, signal }).result);
    await Promise.all(short);
    const long = Array.from({ length: 50 }, () => base.generate({ ...endless, signal }).result);
    await turns(3);
    controller.abort();
    for (const result of long) expect(await codeOf(result)).toBe('ERR_ABORTED');
    process.off('warning', onWarning);
    expect(warnings).toEqual([]);
  });
});

describe('back-pressure', () => {
  test('pauses an iterated request that is not read, and resumes it when it is', async () => {
    const { base, engine } = await open();
    const generation = base.generate(endless);
    const iterator = generation[Symbol.asyncIterator]();
    await iterator.next();
    await turns(200);
    expect(engine.calls.filter((call) => call.startsWith('pause'))).toEqual(['pause 1 true']);
    const waiting = await iterator.next();
    expect((waiting.value as Chunk).tokens).toHaveLength(UNREAD_TOKENS_MAX + 1);
    expect(engine.calls.at(-1)).toBe('pause 1 false');
    let tokens = 0;
    for (let step = await iterator.next(); !step.done; step = await iterator.next()) tokens += step.value.tokens.length;
    expect(tokens).toBeGreaterThan(300);
    expect((await generation.result).tokens).toHaveLength(400);
  });

  test('is lifted by text()', async () => {
    const { base, engine } = await open();
    const generation = base.generate(endless);
    await generation[Symbol.asyncIterator]().next();
    await turns(200);
    expect(engine.calls.at(-1)).toBe('pause 1 true');
    expect(await generation.text()).toHaveLength(400);
  });

  test('of one request leaves the others alone', async () => {
    const { base } = await open();
    const slow = base.generate(endless);
    await slow[Symbol.asyncIterator]().next();
    expect((await base.generate(endless).result).tokens).toHaveLength(400);
    slow.cancel();
    await base.drain();
  });
});

describe('errors', () => {
  test('never throw from generate, and arrive by both ways', async () => {
    const { base } = await open();
    const wrong = { prompt: 'x', tempature: 1 } as GenerateRequest;
    const generation = base.generate(wrong);
    await expect(generation.result).rejects.toMatchObject({
      code: 'ERR_UNKNOWN_OPTION',
      message: 'generate: option "tempature" is unknown; did you mean \'temperature\'?',
    });
    expect(await codeOf(chunksOf(generation))).toBe('ERR_UNKNOWN_OPTION');
    expect(await codeOf(generation.text())).toBe('ERR_UNKNOWN_OPTION');
  });

  test('of options that throw when they are read arrive too', async () => {
    const { base } = await open();
    const hostile = {
      get prompt(): string {
        throw new Error('no');
      },
    };
    expect(await codeOf(base.generate(hostile).result)).toBe('ERR_INTERNAL');
  });

  test('that nobody reads are harmless', async () => {
    const { base } = await open();
    const unhandled: unknown[] = [];
    const onUnhandled = (error: unknown) => unhandled.push(error);
    process.on('unhandledRejection', onUnhandled);
    base.generate(null as never);
    base.generate({ prompt: 'x', adapter: 'nobody' });
    base.generate({ ...endless, signal: AbortSignal.timeout(1) });
    const taken = base.generate({ prompt: 'x', topK: -1 })[Symbol.asyncIterator]();
    expect(await codeOf(taken.next())).toBe('ERR_INVALID_OPTION');
    await new Promise((resolve) => setTimeout(resolve, 20));
    process.off('unhandledRejection', onUnhandled);
    expect(unhandled).toEqual([]);
  });

  test('of the engine come after what was generated before them', async () => {
    const failure = { code: 'ERR_LOGITS_NOT_FINITE', message: 'layer 3' };
    const { base } = await open({ answer: () => ({ ...say('a', 'b'), failure }) });
    const generation = base.generate({ prompt: 'x' });
    let text = '';
    const read = async () => {
      for await (const chunk of generation) text += chunk.text;
    };
    expect(await codeOf(read())).toBe('ERR_LOGITS_NOT_FINITE');
    expect(text).toBe('ab');
    await expect(generation.result).rejects.toMatchObject({ code: 'ERR_LOGITS_NOT_FINITE', retryable: false });
  });

  test('thrown by the addon itself end that request alone', async () => {
    const { base } = await open({ submitThrows: new Error('bad value') });
    await expect(base.generate({ prompt: 'x' }).result).rejects.toMatchObject({
      code: 'ERR_INTERNAL',
      message: 'bad value',
    });
    await expect(base.generate({ tokens: [1] }).result).rejects.toMatchObject({ code: 'ERR_INTERNAL' });
    await base.drain();
  });
});

describe('what the engine is asked for', () => {
  const generation = { doSample: true, temperature: 0.7, topK: 20, topP: 0.8, minP: 0.1 };

  test('greedy, and all that is left of the context, unless something else is said', async () => {
    const { base, engine } = await open();
    const result = await base.generate({ prompt: 'abc' }).result;
    expect(engine.submitted[0]).toMatchObject({
      maxTokens: CONTEXT - 3, minTokens: 0, temperature: 0, topK: 0, topP: 1, minP: 0, stop: [], stopTokens: [], eosTokens: [1],
      repetitionPenalty: 1, presencePenalty: 0, frequencyPenalty: 0, biasTokens: new Uint32Array(), biasValues: new Float32Array(),
      logprobs: -1, promptLogprobs: -1, tenant: '', cacheSalt: '', priority: 0, deadlineMs: 0, adapters: [],
    }); // prettier-ignore
    expect(Number.isSafeInteger(result.seed)).toBe(true);
  });

  test('seeds are drawn anew, or are those that were given', async () => {
    const { base, engine } = await open();
    const seeds = await Promise.all([undefined, undefined, 7].map(async (seed) => {
      const given = seed === undefined ? {} : { seed };
      return (await base.generate({ tokens: [5], maxTokens: 1, ...given }).result).seed;
    })); // prettier-ignore
    expect(seeds[0]).not.toBe(seeds[1]);
    expect(seeds[2]).toBe(7);
    expect(engine.submitted.map(({ seed }) => seed)).toEqual(seeds);
  });

  test('fields that are left out come from generation_config.json', async () => {
    const { base, engine } = await open({}, fakeFolder({ generation }));
    await base.generate({ tokens: [5], maxTokens: 1 }).result;
    await base.generate({ tokens: [5], maxTokens: 1, temperature: 0, topK: 3 }).result;
    expect(engine.submitted[0]).toMatchObject({ temperature: 0.7, topK: 20, topP: 0.8, minP: 0.1 });
    expect(engine.submitted[1]).toMatchObject({ temperature: 0, topK: 3, topP: 0.8, minP: 0.1 });
  });

  test('penalties and biases as they are given', async () => {
    const { base, engine } = await open();
    const given = { repetitionPenalty: 1.3, presencePenalty: -2, frequencyPenalty: 2 };
    const logitBias = { 255: -100, 0: 0.5, 7: -Infinity };
    await base.generate({ tokens: [5], maxTokens: 1, ...given, logitBias }).result;
    expect(engine.submitted[0]).toMatchObject({
      ...given,
      biasTokens: Uint32Array.of(0, 7, 255),
      biasValues: Float32Array.of(0.5, -Infinity, -100),
    });
  });

  test('a repetition penalty of generation_config.json also for a greedy answer, unless another is given', async () => {
    const { base, engine } = await open({}, fakeFolder({ generation: { repetitionPenalty: 1.1 } }));
    await base.generate({ tokens: [5], maxTokens: 1 }).result;
    await base.generate({ tokens: [5], maxTokens: 1, repetitionPenalty: 1 }).result;
    expect(engine.submitted.map(({ temperature, repetitionPenalty }) => [temperature, repetitionPenalty])).toEqual([
      [0, 1.1],
      [0, 1],
    ]);
  });

  test('do_sample: false is greedy unless a temperature is given; do_sample: true without one is 1', async () => {
    const { base, engine } = await open({}, fakeFolder({ generation: { ...generation, doSample: false } }));
    await base.generate({ tokens: [5], maxTokens: 1 }).result;
    await base.generate({ tokens: [5], maxTokens: 1, temperature: 0.5 }).result;
    expect(engine.submitted.map(({ temperature }) => temperature)).toEqual([0, 0.5]);
    const other = await open({}, fakeFolder({ generation: { doSample: true } }));
    await other.base.generate({ tokens: [5], maxTokens: 1 }).result;
    expect(other.engine.submitted[0]!.temperature).toBe(1);
  });

  test('ignoreEos leaves the engine no end of sequence', async () => {
    const { base, engine } = await open();
    await base.generate({ tokens: [5], maxTokens: 1, ignoreEos: true }).result;
    expect(engine.submitted[0]!.eosTokens).toEqual([]);
  });

  test('tokens are copied: the caller may change the array', async () => {
    const { base, engine } = await open();
    const tokens = [5, 6];
    const running = base.generate({ tokens, maxTokens: 1 });
    tokens[0] = 99;
    await running.result;
    expect([...engine.submitted[0]!.tokens]).toEqual([5, 6]);
  });

  test('a conversation goes through the template, tools and all', async () => {
    const { base, engine } = await open();
    const tools = [{ type: 'function' as const, function: { name: 'f' } }];
    await base.generate({ messages: [{ role: 'user', content: 'hi' }], tools, maxTokens: 1 }).result;
    expect(Buffer.from(engine.submitted[0]!.tokens).toString()).toBe('[base]<1>user:hi>');
  });

  test('special tokens that are spelled out are tokens in a prompt, and text in a conversation, unless asked', async () => {
    const { base, tokenizer } = await open();
    const messages = [{ role: 'user', content: 'hi' }];
    await base.generate({ prompt: 'x', maxTokens: 1 }).result;
    await base.generate({ prompt: 'x', parseSpecialTokens: false, maxTokens: 1 }).result;
    await base.generate({ messages, maxTokens: 1 }).result;
    await base.generate({ messages, parseSpecialTokens: true, maxTokens: 1 }).result;
    await base.tokenizer.encode('x', { parseSpecialTokens: false });
    expect(tokenizer.parseSpecialTokens).toEqual([true, false, false, true, false]);
    const wrong = base.tokenizer.encode('x', { parseSpecialTokens: 1 as never });
    await expect(wrong).rejects.toMatchObject({ code: 'ERR_INVALID_OPTION' });
  });

  test('time spent on encoding counts towards the deadline', async () => {
    const { base, engine, tokenizer } = await open();
    tokenizer.isHeld = true;
    const late = base.generate({ prompt: 'x', deadlineMs: 5 });
    const soon = base.generate({ prompt: 'x', maxTokens: 1, deadlineMs: 60_000 });
    // Though the encoding never ends.
    await expect(late.result).rejects.toMatchObject({ code: 'ERR_DEADLINE', retryable: true });
    await new Promise((resolve) => setTimeout(resolve, 20));
    tokenizer.isHeld = false;
    await soon.result;
    expect(engine.submitted[0]!.deadlineMs).toBeLessThan(59_990);
  });
});
