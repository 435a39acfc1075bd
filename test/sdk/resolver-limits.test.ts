// `adapterResolver` beside registrations of the same ids, and within its limits.

import { describe, expect, test } from 'vitest';
import { codeOf, openFake, turns } from './fake-parts.js';
import { inMemory, useResolvers } from './resolver-parts.js';

const { open, spooled, opened } = useResolvers();

describe('registerAdapter of an id that is being resolved', () => {
  test.each(['asked for', 'read', 'checked'])('wins, while it is %s', async (stage) => {
    let isHeld = stage === 'checked';
    const { base, engine, reader, ask, asking } = await open({
      fake: { isCheckHeld: ({ files }) => isHeld && files[0] === 'theirs' },
    });
    if (stage === 'read') reader.held.add('theirs');
    const waiting = [ask('a').result, ask('a').result];
    const [question] = await asking(1);
    if (stage !== 'asked for') question!.answer('theirs');
    if (stage === 'checked') while (engine.adapters.size === 0) await turns(1);
    const { generation } = await base.registerAdapter('a', 'mine');
    expect(question!.signal.aborted).toBe(true);
    for (const { adapters } of await Promise.all(waiting)) expect(adapters[0]!.generation).toBe(generation);
    question!.answer('theirs');
    reader.held.clear();
    isHeld = false;
    await base.registerAdapter('other', 'x');
    await turns(3);
    expect(base.adapters.get('a')!.generation).toBe(generation);
    expect([...engine.adapters.values()].map(({ spec }) => spec.files[0])).toEqual(['mine', 'x']);
  });

  test('wins, also when it is done later', async () => {
    const { base, reader, ask, asking } = await open();
    const waiting = ask('a').result;
    const [question] = await asking(1);
    reader.held.add('mine');
    const registering = base.registerAdapter('a', 'mine');
    question!.answer('theirs');
    const { adapters } = await waiting;
    reader.held.clear();
    const { generation } = await registering;
    expect(generation).not.toBe(adapters[0]!.generation);
    expect(base.adapters.get('a')!.generation).toBe(generation);
  });

  test('and unregistered at once leaves nothing', async () => {
    const { base, engine, ask, asking } = await open({
      fake: { isCheckHeld: ({ files }) => isHeld && files[0] === 'theirs' },
    });
    let isHeld = true;
    const waiting = ask('a').result;
    (await asking(1))[0]!.answer('theirs');
    while (engine.adapters.size === 0) await turns(1);
    await base.registerAdapter('a', 'mine');
    const gone = base.unregisterAdapter('a');
    isHeld = false;
    await waiting;
    await gone;
    await base.registerAdapter('other', 'x');
    expect([...base.adapters.list()].map(({ id }) => id)).toEqual(['other']);
  });
});

describe('an id that is resolved', () => {
  test('and unregistered in the same turn is asked for again', async () => {
    let asked = 0;
    const more: Promise<string>[] = [];
    const fake = await openFake(
      {},
      {
        adapterResolver: async () => (asked++ === 0 ? 'warned' : 'x'),
        logger: {
          // Called in the turn of the swap, by what resolved it.
          warn: () => {
            void base.unregisterAdapter('a', { drain: false });
            more.push(ask());
          },
        },
      },
    );
    const { base } = fake;
    opened(fake);
    const ask = () => base.generate({ prompt: 'ab', maxTokens: 1, adapter: 'a' }).text();
    expect(await ask()).toBe('a');
    expect(await Promise.all(more)).toEqual(['a']);
    expect([asked, more.length]).toEqual([2, 1]);
  });

  test('to null, and registered for all meanwhile, is that', async () => {
    const { base, ask, asking } = await open();
    const [mine, other] = [ask('a', { tenant: 't' }).result, ask('b', { tenant: 't' }).result];
    const questions = await asking(2);
    const { generation } = await base.registerAdapter('a', 'x');
    for (const question of questions) question.answer(null);
    expect((await mine).adapters[0]!.generation).toBe(generation);
    expect(await codeOf(other)).toBe('ERR_ADAPTER_NOT_FOUND');
  });
});

describe('limits.maxQueuedPerTenant', () => {
  test('counts requests that wait for the resolver or the tokenizer, and no other tenant pays', async () => {
    const { resolver, limits } = {
      resolver: () => new Promise<null>(() => undefined),
      limits: { maxQueuedPerTenant: 2 },
    };
    const fake = await openFake({}, { adapterResolver: resolver, limits });
    opened(fake);
    const { base, tokenizer, engine } = fake;
    const ask = (more: object) => base.generate({ prompt: 'ab', maxTokens: 1, ...more });
    tokenizer.isHeld = true;
    const waiting = [ask({ tenant: 't', adapter: 'a' }), ask({ tenant: 't' })];
    const error = { code: 'ERR_OVERLOADED', retryable: true, details: { tenant: 't' } };
    const message = "2 requests of tenant 't' wait or run, as many as limits.maxQueuedPerTenant allows";
    for (let i = 0; i < 2; i++) await expect(ask({ tenant: 't' }).result).rejects.toMatchObject({ ...error, message });
    const others = [ask({ tenant: 'u' }), ...Array.from({ length: 3 }, () => ask({}))];
    // Every end makes room, once: a cancel, an answer, an error.
    waiting[0]!.cancel();
    waiting[0]!.cancel();
    const failing = ask({ tenant: 't', maxTokens: 10_000 });
    expect(await codeOf(ask({ tenant: 't' }).result)).toBe('ERR_OVERLOADED');
    tokenizer.isHeld = false;
    expect(await codeOf(failing.result)).toBe('ERR_CONTEXT_LENGTH');
    for (const generation of [waiting[1]!, ...others]) expect(await generation.text()).toBe('a');
    const again = [ask({ tenant: 't' }), ask({ tenant: 't' })];
    expect(await codeOf(ask({ tenant: 't' }).result)).toBe('ERR_OVERLOADED');
    for (const generation of again) expect(await generation.text()).toBe('a');
    expect(engine.submitted).toHaveLength(7);
  });
});

describe('resolverLimits', () => {
  test('maxConcurrent: the others wait, and tenants take turns', async () => {
    const { ask, asking, questions } = await open({ limits: { maxConcurrent: 2 } });
    const flood = Array.from({ length: 5 }, (_, i) => ask(`flood${i}`, { tenant: 't' }).result);
    const quiet = ask('quiet', { tenant: 'u' }).result;
    const dropped = ask('dropped', { tenant: 'u' });
    await asking(2);
    await turns(5);
    // Both tenants ask; the flood doesn't come first.
    expect(questions.map(({ id }) => id)).toEqual(['flood0', 'quiet']);
    dropped.cancel();
    for (let i = 0; i < 6; i++) (await asking(Math.min(6, i + 2)))[i]!.answer('x');
    await Promise.all([...flood, quiet]);
    expect(questions.map(({ id }) => id)).toEqual(['flood0', 'quiet', 'flood1', 'flood2', 'flood3', 'flood4']);
  });

  test('maxResolved: the least recently used one leaves, what was registered stays', async () => {
    const { base, engine, ask, asked } = await open({ resolver: async () => inMemory(), limits: { maxResolved: 2 } });
    const ids = () => [...base.adapters.list()].map(({ id }) => id);
    await base.registerAdapter('mine', 'x');
    await ask('a').result;
    const running = ask('b', { maxTokens: 40 });
    while (!base.adapters.get('b')) await turns(1);
    await ask('a').result;
    await ask('c').result;
    // b was used longest ago; its request goes on.
    expect(ids()).toEqual(['mine', 'a', 'c']);
    expect((await running.result).tokens).toHaveLength(40);
    await ask('mine').result;
    await ask('d').result;
    expect(ids()).toEqual(['mine', 'c', 'd']);
    expect(asked()).toBe(4);
    // One that is registered over what was resolved is nobody's to remove.
    await base.registerAdapter('c', 'y');
    await ask('e').result;
    await ask('f').result;
    expect(ids()).toEqual(['mine', 'c', 'e', 'f']);
    while (spooled().length > 2) await turns(1);
    expect(engine.adapters.size).toBe(4);
  });

  test('maxResolved 1 and many requests at once: each has its answer', async () => {
    const { ask, engine } = await open({ resolver: async (id) => id, limits: { maxResolved: 1 } });
    const results = Array.from({ length: 60 }, (_, i) => ask(`a${i % 20}`, { maxTokens: 5 }).result);
    for (const [i, result] of results.entries()) {
      const { tokens, adapters } = await result;
      expect([tokens.length, adapters[0]!.id]).toEqual([5, `a${i % 20}`]);
    }
    while (engine.adapters.size > 1) await turns(1);
  });
});
