// `adapterResolver`: who asks it, how often, what its answers do, and that nothing of it stays.

import { Readable } from 'node:stream';
import { describe, expect, test } from 'vitest';
import { OpenLoraError, type AdapterResolver } from '../../src/index.js';
import { codeOf, openFake, turns } from './fake-parts.js';
import { inMemory, useResolvers, type Answer } from './resolver-parts.js';

const { open, spooled, opened } = useResolvers();

describe('an id that nobody registered', () => {
  test.each<[string, () => Answer]>([
    ['a folder', () => 'x'],
    ['files in memory', inMemory],
    ['a stream', () => ({ ...inMemory(), tensors: Readable.from([Buffer.alloc(50), Buffer.alloc(50)]) })],
  ])('is %s of the resolver, registered under it', async (_, make) => {
    const { base, engine, ask, asked } = await open({ resolver: async () => make() });
    expect(base.adapters.get('a')).toBeUndefined();
    const { text, adapters } = await ask('a').result;
    expect(text).toBe('a');
    expect(adapters).toMatchObject([{ id: 'a', tier: 'resident', weight: 1 }]);
    expect(adapters[0]!.generation).toBe(base.adapters.get('a')!.generation);
    await ask('a').result;
    await base.generate({ tokens: [97], maxTokens: 1, adapter: 'a' }).result;
    expect(asked()).toBe(1);
    expect(engine.submitted.map(({ adapters }) => adapters)).toEqual(Array(3).fill([{ handle: 1, weight: 1 }]));
  });

  test('is asked for once, however many requests wait, of whatever kind', async () => {
    const { ask, asking, asked } = await open();
    const messages = [{ role: 'user', content: 'hi' }];
    const results = [
      ...Array.from({ length: 20 }, () => ask('a')),
      ask('a', { prompt: undefined, tokens: [97] }),
      ask('a', { prompt: undefined, messages }),
    ].map((generation) => generation.text());
    const [question] = await asking(1);
    question!.answer('template');
    const texts = await Promise.all(results);
    expect(texts).toEqual([...Array<string>(21).fill('a'), '[']);
    expect(asked()).toBe(1);
  });

  test('gives its template to the conversations that waited', async () => {
    const { base, engine } = await open({ resolver: async () => 'template' });
    await base.generate({ messages: [{ role: 'user', content: 'hi' }], maxTokens: 1, adapter: 'a' }).result;
    expect(Buffer.from(engine.submitted[0]!.tokens).toString()).toBe('[own]user:hi>');
  });

  test('is asked for by tenant, and registered for it alone', async () => {
    const { base, ask, asking, asked } = await open();
    await base.registerAdapter('shared', 'x');
    await ask('shared', { tenant: 't' }).result;
    expect(asked()).toBe(0);
    const results = [undefined, 't', 'u'].map((tenant) => ask('a', tenant === undefined ? {} : { tenant }).result);
    const questions = await asking(3);
    expect(questions.map(({ id, tenant }) => [id, tenant])).toEqual([
      ['a', undefined],
      ['a', 't'],
      ['a', 'u'],
    ]);
    questions[1]!.answer('own');
    expect((await results[1]!).text).toBe('a');
    questions[0]!.answer(null);
    questions[2]!.answer(null);
    expect(await codeOf(results[0]!)).toBe('ERR_ADAPTER_NOT_FOUND');
    expect(await codeOf(results[2]!)).toBe('ERR_ADAPTER_NOT_FOUND');
    expect([...base.adapters.list()].map(({ id, tenant }) => [id, tenant])).toEqual([
      ['shared', undefined],
      ['a', 't'],
    ]);
  });

  test('is asked for by each tenant, whoever asked before', async () => {
    const { base, ask } = await open({ resolver: async (_, { tenant }) => tenant ?? 'shared' });
    await ask('a').result;
    const mine = (await ask('a', { tenant: 't' }).result).adapters[0]!.generation;
    expect(mine).not.toBe(base.adapters.get('a')!.generation);
    expect(base.adapters.get('a', { tenant: 't' })!.generation).toBe(mine);
    expect(base.adapters.get('a', { tenant: 'u' })).toBeUndefined();
    // One that is registered for all is everyone's who has none.
    const { generation } = await base.registerAdapter('a', 'x');
    expect((await ask('a', { tenant: 'u' }).result).adapters[0]!.generation).toBe(generation);
    expect((await ask('a', { tenant: 't' }).result).adapters[0]!.generation).toBe(mine);
  });

  test('is not asked for by anything but requests', async () => {
    const { base, asked } = await open({ resolver: async () => 'x' });
    expect(base.adapters.get('a')).toBeUndefined();
    expect(await codeOf(() => base.renderChat([{ role: 'user', content: '' }], { adapter: 'a' }))).toBe(
      'ERR_ADAPTER_NOT_FOUND',
    );
    expect(await codeOf(base.unregisterAdapter('a'))).toBe('ERR_ADAPTER_NOT_FOUND');
    expect(asked()).toBe(0);
  });

  test('is asked for again once it was unregistered', async () => {
    const { base, ask, asked } = await open({ resolver: async () => inMemory() });
    await ask('a').result;
    await base.unregisterAdapter('a');
    expect(spooled()).toEqual([]);
    await ask('a').result;
    expect(asked()).toBe(2);
  });
});

describe('null', () => {
  test('is ERR_ADAPTER_NOT_FOUND, and remembered', async () => {
    const { ask, asked } = await open({ resolver: async () => null, limits: { missTtlMs: 2 ** 31 - 1 } });
    for (let i = 0; i < 3; i++) {
      await expect(ask('a', { tenant: 't' }).result).rejects.toMatchObject({
        code: 'ERR_ADAPTER_NOT_FOUND',
        message: "adapter 'a' is not registered for tenant 't'",
        details: { id: 'a' },
        retryable: false,
      });
    }
    expect(asked()).toBe(1);
    expect(await codeOf(ask('a').result)).toBe('ERR_ADAPTER_NOT_FOUND');
    expect(asked()).toBe(2);
  });

  test('is asked for again when its time is over', async () => {
    const { ask, asked } = await open({ resolver: async () => null, limits: { missTtlMs: 5 } });
    await codeOf(ask('a').result);
    const over = performance.now() + 5;
    while (performance.now() <= over) await turns(1);
    await codeOf(ask('a').result);
    expect(asked()).toBe(2);
  });

  test.each([
    [{ missTtlMs: 0 }, 4],
    [{ maxMisses: 0 }, 4],
    [{ maxMisses: 2 }, 2],
  ])('with %j: twice the ids a and b ask %i times', async (limits, times) => {
    const { ask, asked } = await open({ resolver: async () => null, limits });
    for (const id of ['a', 'b', 'a', 'b']) await codeOf(ask(id).result);
    expect(asked()).toBe(times);
    for (const id of ['c', 'b']) await codeOf(ask(id).result);
    // The oldest went for c.
    expect(asked()).toBe(times === 2 ? 3 : 6);
  });

  test('is forgotten when the id is registered', async () => {
    let answer: Answer = null;
    const { base, ask, asked } = await open({ resolver: async () => answer });
    await codeOf(ask('a').result);
    await base.registerAdapter('a', 'x');
    await ask('a').result;
    await base.unregisterAdapter('a');
    answer = 'y';
    await ask('a').result;
    expect(asked()).toBe(2);
  });
});

describe('a resolver that fails', () => {
  const failures: [string, () => unknown, string, boolean, number][] = [
    ['throws', () => { throw new Error('no network'); }, 'ERR_ADAPTER_RESOLVER', true, 2],
    ['rejects', () => Promise.reject(new TypeError('no network')), 'ERR_ADAPTER_RESOLVER', true, 2],
    ['throws nothing', () => AbortSignal.abort(null).throwIfAborted(), 'ERR_ADAPTER_RESOLVER', true, 2],
    ['gives undefined', () => undefined, 'ERR_ADAPTER_RESOLVER', true, 2],
    ['gives a number', () => 5, 'ERR_ADAPTER_RESOLVER', true, 2],
    ['gives an empty path', () => '', 'ERR_ADAPTER_RESOLVER', true, 2],
    ['gives files with an unknown key', () => ({ ...inMemory(), path: 'x' }), 'ERR_ADAPTER_RESOLVER', true, 2],
    ['gives no tensors', () => ({ config: {} }), 'ERR_ADAPTER_RESOLVER', true, 2],
    ['rejects with a code', () => Promise.reject(new OpenLoraError('ERR_OVERLOADED', 'x')), 'ERR_OVERLOADED', true, 2],
    ['rejects with a code that stays', () => Promise.reject(new OpenLoraError('ERR_IO', 'x')), 'ERR_IO', false, 1],
    ['gives a folder that is not there', () => 'missing', 'ERR_ADAPTER_FILE', false, 1],
    ['gives what is no LoRA', () => ({ ...inMemory(), config: {} }), 'ERR_ADAPTER_PEFT_TYPE', false, 1],
    ['gives what the engine refuses', () => 'bad', 'ERR_ADAPTER_NOT_FINITE', false, 1],
    ['gives a stream that fails', () => ({ ...inMemory(), tensors: Readable.from((async function* () { yield await Promise.reject(new Error('cut')); })()) }), 'ERR_ADAPTER_STREAM', false, 1],
  ]; // prettier-ignore
  test.each(failures)('%s fails its requests alone', async (_, answer, code, retryable, asks) => {
    const neighbour = { count: 0 };
    const { base, engine, ask } = await open({
      resolver: (async (id: string) => (id === 'good' ? 'x' : (neighbour.count++, answer()))) as AdapterResolver,
      fake: {
        adapterFailure: ({ files }) =>
          files[0] === 'bad' ? { code: 'ERR_ADAPTER_NOT_FINITE', message: 'NaN' } : undefined,
      },
    });
    const [good, bad] = [ask('good').text(), [ask('a').result, ask('a').result]];
    for (const result of bad) await expect(result).rejects.toMatchObject({ code, retryable });
    expect(await good).toBe('a');
    expect(base.adapters.get('a')).toBeUndefined();
    expect(await codeOf(ask('a').result)).toBe(code);
    // What would end the same way is remembered.
    expect(neighbour.count).toBe(asks);
    await turns(3);
    expect([engine.adapters.size, spooled()]).toEqual([1, []]);
  });

  test('keeps what it threw as the cause', async () => {
    const cause = new Error('no network');
    const { ask } = await open({ resolver: () => Promise.reject(cause) });
    await expect(ask('a').result).rejects.toMatchObject({
      message: "adapterResolver failed for 'a': no network",
      details: { id: 'a' },
      cause,
    });
  });

  test('hangs: ERR_ADAPTER_RESOLVER_TIMEOUT, its signal aborted, its place free, and what comes too late is let go', async () => {
    const { base, ask, asking } = await open({ limits: { timeoutMs: 20, maxConcurrent: 1 } });
    const [hung, next] = [ask('a').result, ask('b').result];
    await expect(hung).rejects.toMatchObject({
      code: 'ERR_ADAPTER_RESOLVER_TIMEOUT',
      retryable: true,
      message: expect.stringMatching(/'a' than 20 ms, resolverLimits.timeoutMs$/),
    });
    const questions = await asking(2);
    expect(questions[0]!.signal.aborted).toBe(true);
    expect(questions[0]!.signal.reason).toMatchObject({ code: 'ERR_ADAPTER_RESOLVER_TIMEOUT' });
    questions[1]!.answer('x');
    await next;
    let isLetGo = false;
    const late = new Readable({ read: () => undefined, destroy: (_, done) => { isLetGo = true; done(null); } }); // prettier-ignore
    questions[0]!.answer({ ...inMemory(), tensors: late });
    while (!isLetGo) await turns(1);
    expect(base.adapters.get('a')).toBeUndefined();
    // Asked again: a time-out says nothing of the adapter.
    const again = ask('a').result;
    (await asking(3))[2]!.answer('x');
    await again;
  });

  test('gives a stream that hangs: the same time is for both', async () => {
    let isLetGo = false;
    const tensors = {
      [Symbol.asyncIterator]: () => ({
        next: () => new Promise<never>(() => undefined),
        return: async () => ((isLetGo = true), { done: true as const, value: undefined }),
      }),
    };
    const { ask } = await open({ resolver: async () => ({ ...inMemory(), tensors }), limits: { timeoutMs: 20 } });
    expect(await codeOf(ask('a').result)).toBe('ERR_ADAPTER_RESOLVER_TIMEOUT');
    expect(isLetGo).toBe(true);
  });

  test('late rejections and rejections after an abort are nobody’s', async () => {
    const { base, ask, asking } = await open({ limits: { timeoutMs: 5 } });
    expect(await codeOf(ask('a').result)).toBe('ERR_ADAPTER_RESOLVER_TIMEOUT');
    const left = ask('b');
    const questions = await asking(2);
    left.cancel();
    for (const { fail } of questions) fail(new Error('late'));
    await turns(3);
    await base.dispose();
  });
});

describe('the requests that wait', () => {
  test('the last that leaves aborts the signal; until then it runs', async () => {
    const { ask, asking, engine } = await open();
    const controller = new AbortController();
    const all = [ask('a', { signal: controller.signal }), ask('a'), ask('a', { deadlineMs: 30 })];
    const [question] = await asking(1);
    controller.abort('mine');
    await expect(all[0]!.result).rejects.toMatchObject({ code: 'ERR_ABORTED', cause: 'mine' });
    all[1]!.cancel();
    expect(await all[1]!.result).toMatchObject({ finishReason: 'cancelled', adapters: [] });
    expect(question!.signal.aborted).toBe(false);
    expect(await codeOf(all[2]!.result)).toBe('ERR_DEADLINE');
    expect(question!.signal.aborted).toBe(true);
    expect(question!.signal.reason).toMatchObject({ code: 'ERR_ABORTED' });
    // Who comes then doesn't get what was given up, but asks again.
    const late = ask('a').result;
    const questions = await asking(2);
    questions[0]!.answer('old');
    questions[1]!.answer('new');
    await late;
    expect(engine.calls.filter((call) => call.startsWith('reg'))).toHaveLength(1);
    expect([...engine.adapters.values()][0]!.spec.files).toEqual(['new']);
  });

  test('that leave while the adapter is read or checked end that, too', async () => {
    let isHeld = true;
    const { base, engine, reader, ask } = await open({
      resolver: async () => 'x',
      fake: { isCheckHeld: () => isHeld },
    });
    reader.held.add('x');
    const whileRead = ask('a');
    await turns(3);
    whileRead.cancel();
    reader.held.clear();
    await turns(3);
    expect(engine.adapters.size).toBe(0);
    const whileChecked = ask('a');
    while (engine.adapters.size === 0) await turns(1);
    whileChecked.cancel();
    isHeld = false;
    await ask('b').result;
    await turns(3);
    expect([...base.adapters.list()].map(({ id }) => id)).toEqual(['b']);
    expect(engine.adapters.size).toBe(1);
  });

  test('count as waiting, for limits.maxQueued', async () => {
    const fake = await openFake({}, { adapterResolver: () => new Promise(() => undefined), limits: { maxQueued: 2 } });
    opened(fake);
    const ask = () => fake.base.generate({ prompt: 'x', adapter: 'a' });
    const [first, second] = [ask(), ask()];
    expect(await codeOf(ask().result)).toBe('ERR_OVERLOADED');
    first.cancel();
    second.cancel();
    await first.result;
  });

  test('and the resolver hear of it when the base is disposed', async () => {
    const { base, ask, asking, questions } = await open({ limits: { maxConcurrent: 1 } });
    const [asked, queued] = [ask('a').result, ask('b').result];
    await asking(1);
    const disposing = base.dispose();
    expect(questions[0]!.signal.reason).toMatchObject({ code: 'ERR_CLOSED' });
    expect(await codeOf(asked)).toBe('ERR_CLOSED');
    expect(await codeOf(queued)).toBe('ERR_CLOSED');
    expect(await codeOf(ask('c').result)).toBe('ERR_CLOSED');
    questions[0]!.answer('x');
    await disposing;
    expect(questions).toHaveLength(1);
  });

  test('and the resolver hear of it when the engine dies', async () => {
    const { engine, ask, asking } = await open();
    const result = ask('a').result;
    const [question] = await asking(1);
    engine.crash('ERR_OUT_OF_MEMORY', 'none left');
    expect(await codeOf(result)).toBe('ERR_OUT_OF_MEMORY');
    expect(question!.signal.aborted).toBe(true);
  });
});
