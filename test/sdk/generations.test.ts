// A name that is registered again: what requests find, what the calls say, and what is freed when.

import { describe, expect, test } from 'vitest';
import { generationOfHandle, type FakeOptions } from './fake-native.js';
import { codeOf, openFake, turns } from './fake-parts.js';
import { useSpool } from './spool-parts.js';

const { spooled, opened } = useSpool('generations');

async function open(options: FakeOptions = {}) {
  const fake = await openFake(options);
  opened(fake);
  const { base, engine } = fake;
  const ask = (maxTokens = 1) => base.generate({ prompt: 'ab', maxTokens, adapter: 'a' });
  return {
    ...fake,
    ask,
    /** Of what the name means. */
    meaning: () => base.adapters.get('a')?.generation,
    files: () => [...engine.adapters.values()].map(({ spec }) => spec.files[0]!),
  };
}

const first = generationOfHandle(1);
const second = generationOfHandle(2);
const inMemory = (byte = 1) => ({ config: { peft_type: 'LORA' }, tensors: new Uint8Array(100).fill(byte) });

describe('a name that is registered again', () => {
  test('means the old generation until the new one is ready, and then the new one', async () => {
    let isHeld = false;
    const { base, engine, reader, ask, meaning } = await open({
      isCheckHeld: ({ files }) => isHeld && files[0] === 'new',
    });
    await base.registerAdapter('a', 'old');
    isHeld = true;
    reader.held.add('new');
    const registering = base.registerAdapter('a', 'new');
    const early = ask();
    await turns(3);
    reader.held.clear();
    while (!engine.calls.includes('registerAdapter 2')) await turns(1);
    const whileChecked = ask();
    await turns(5);
    expect(meaning()).toBe(first);
    isHeld = false;
    ask();
    expect((await registering).generation).toBe(second);
    expect(meaning()).toBe(second);
    const late = ask();
    for (const [generation, request] of [[first, early], [first, whileChecked], [second, late]] as const) {
      expect((await request.result).adapters[0]!.generation).toBe(generation);
    } // prettier-ignore
    expect(base.adapters.stats().registered).toBe(1);
    expect([...base.adapters.list()].map(({ generation }) => generation)).toEqual([second]);
  });

  test('lets every request finish on the generation that it found, then frees that', async () => {
    const { base, engine, tokenizer, ask, files } = await open();
    await base.registerAdapter('a', 'old');
    const running = ask(40);
    await turns(5);
    tokenizer.isHeld = true;
    const encoding = ask(2);
    await base.registerAdapter('a', 'new');
    expect(files()).toEqual(['old', 'new']);
    // Its prompt is not encoded: the engine must not forget the adapter that it will name.
    expect(engine.calls).not.toContain('unregisterAdapter 1');
    tokenizer.isHeld = false;
    expect((await encoding.result).adapters[0]!.generation).toBe(first);
    expect(engine.calls.filter((call) => call === 'unregisterAdapter 1')).toHaveLength(1);
    expect(files()).toEqual(['old', 'new']);
    expect((await running.result).adapters[0]!.generation).toBe(first);
    await turns(2);
    expect(files()).toEqual(['new']);
  });

  test('swaps in one turn: there is no moment without it', async () => {
    const { base, meaning } = await open();
    await base.registerAdapter('a', 'x');
    let isOver = false;
    const registering = (async () => {
      for (let i = 0; i < 20; i++) await base.registerAdapter('a', `x${i}`);
      isOver = true;
    })();
    let asked = 0;
    while (!isOver) {
      expect(meaning()).toBeDefined();
      asked++;
      // Between microtasks, too.
      await (asked % 3 === 0 ? turns(1) : undefined);
    }
    await registering;
    expect(asked).toBeGreaterThan(20);
  });

  test.each([
    ['whose folder is bad', 'ERR_ADAPTER_FILE', 'missing', {}],
    ['that the engine refuses', 'ERR_ADAPTER_NOT_FINITE', 'bad', {}],
    ['that is aborted', 'ERR_ABORTED', 'new', { signal: AbortSignal.timeout(5) }],
    ['of another generation than expected', 'ERR_ADAPTER_GENERATION', 'new', { expectedGeneration: second }],
    ['that has to be free', 'ERR_ADAPTER_GENERATION', 'new', { expectedGeneration: null }],
  ])('stays as it was after one %s', async (_, code, path, options) => {
    const failure = { code: 'ERR_ADAPTER_NOT_FINITE', message: 'NaN' };
    const isCheckHeld = () => 'signal' in options && meaning() !== undefined;
    const { base, ask, meaning, files } = await open({
      adapterFailure: ({ files }) => (files[0] === 'bad' ? failure : undefined),
      isCheckHeld: () => isHeld(),
    });
    let isHeld = () => false;
    const info = await base.registerAdapter('a', 'old');
    isHeld = isCheckHeld;
    expect(await codeOf(base.registerAdapter('a', path, options))).toBe(code);
    isHeld = () => false;
    expect(base.adapters.get('a')).toEqual(info);
    expect((await ask().result).adapters[0]!.generation).toBe(first);
    await turns(3);
    expect(files()).toEqual(['old']);
  });

  test('keeps what it has where the same content is given in memory again', async () => {
    const { base, engine, ask, files } = await open({ generationOf: () => 'f'.repeat(64) });
    const info = await base.registerAdapter('a', inMemory());
    expect(await base.registerAdapter('a', inMemory())).toEqual(info);
    while (spooled().length > 1) await turns(1);
    expect(files()).toHaveLength(1);
    expect(spooled()).toEqual(['1.safetensors']);
    await ask().result;
    expect(engine.submitted.at(-1)!.adapters[0]!.handle).toBe(1);
    // The files of a folder are the caller's: they may be others now, or the old ones about to go.
    await base.registerAdapter('a', 'folder');
    await turns(3);
    expect(files()).toEqual(['folder']);
    await base.registerAdapter('a', 'elsewhere');
    await turns(3);
    expect(files()).toEqual(['elsewhere']);
  });

  test('leaves the file of the old generation until its last request has ended', async () => {
    const { base, ask } = await open();
    await base.registerAdapter('a', inMemory(1));
    const running = ask(40);
    await turns(5);
    await base.registerAdapter('a', inMemory(2));
    expect(spooled()).toHaveLength(2);
    await running.result;
    while (spooled().length > 1) await turns(1);
    expect(spooled()).toEqual(['2.safetensors']);
  });
});

describe('expectedGeneration', () => {
  test('compares and sets: what the name means at the moment of the swap', async () => {
    const { base, meaning } = await open();
    await expect(base.registerAdapter('a', 'x', { expectedGeneration: first })).rejects.toMatchObject({
      code: 'ERR_ADAPTER_GENERATION',
      message: `adapter 'a' is not registered, expectedGeneration wanted generation ${first}`,
      details: { id: 'a', generation: null, expected: first },
    });
    expect(meaning()).toBeUndefined();
    const { generation } = await base.registerAdapter('a', 'x', { expectedGeneration: null });
    expect(generation).toBe(second);
    await expect(base.registerAdapter('a', 'y', { expectedGeneration: null })).rejects.toMatchObject({
      code: 'ERR_ADAPTER_GENERATION',
      message: `adapter 'a' is of generation ${second}, expectedGeneration wanted no adapter of that id`,
      details: { id: 'a', generation: second, expected: null },
    });
    await base.registerAdapter('a', 'y', { expectedGeneration: second });
    expect(meaning()).toBe(generationOfHandle(4));
    expect(await codeOf(base.registerAdapter('a', 'z', { expectedGeneration: second }))).toBe('ERR_ADAPTER_GENERATION');
  });

  test('of several at once exactly one wins', async () => {
    const { base, meaning } = await open();
    await base.registerAdapter('a', 'x');
    const all = await Promise.allSettled(
      Array.from({ length: 10 }, (_, i) => base.registerAdapter('a', `x${i}`, { expectedGeneration: first })),
    );
    const won = all.filter(({ status }) => status === 'fulfilled');
    expect(won).toHaveLength(1);
    expect(meaning()).toBe((won[0] as PromiseFulfilledResult<{ generation: string }>).value.generation);
  });

  test("means exactly (tenant, id): not the shared adapter that the tenant's requests find", async () => {
    const { base } = await open();
    await base.registerAdapter('a', 'shared');
    await base.registerAdapter('a', 'own', { tenant: 't', expectedGeneration: null });
    expect(base.adapters.get('a', { tenant: 't' })!.generation).toBe(second);
  });
});

describe('two registrations of one name at the same time', () => {
  test('swap in the order in which they were called, where they are done in that order', async () => {
    const { base, reader, meaning } = await open();
    reader.held.add('y');
    const [x, y] = [base.registerAdapter('a', 'x'), base.registerAdapter('a', 'y')];
    expect((await x).generation).toBe(first);
    expect(meaning()).toBe(first);
    reader.held.clear();
    expect((await y).generation).toBe(second);
    expect(meaning()).toBe(second);
  });

  test.each(['read', 'checked'])('the one that was called last wins, also while the first is %s', async (stage) => {
    let isHeld = stage === 'checked';
    const { base, engine, reader, meaning, files } = await open({
      isCheckHeld: ({ files }) => isHeld && files[0] === 'x',
    });
    if (stage === 'read') reader.held.add('x');
    const x = base.registerAdapter('a', 'x');
    if (stage === 'checked') while (engine.adapters.size === 0) await turns(1);
    const y = await base.registerAdapter('a', 'y');
    await expect(x).rejects.toMatchObject({
      code: 'ERR_ADAPTER_SUPERSEDED',
      message: "adapter 'a' was registered again by a later call, before this one was done",
    });
    isHeld = false;
    reader.held.clear();
    await base.registerAdapter('other', 'z');
    await turns(5);
    expect(meaning()).toBe(y.generation);
    expect(files()).toEqual(['y', 'z']);
  });

  test('ready in the same step: the later one wins, whatever the order of their events', async () => {
    let isHeld = true;
    const { base, engine, meaning } = await open({ isCheckHeld: () => isHeld });
    const all = ['x', 'y', 'z'].map((path) =>
      base.registerAdapter('a', path).catch((error: { code: string }) => error.code),
    );
    while (engine.adapters.size < 3) await turns(1);
    isHeld = false;
    engine.step();
    const outcomes = await Promise.all(all);
    expect(meaning()).toBe((outcomes[2] as { generation: string }).generation);
    await turns(3);
    expect(engine.adapters.size).toBe(1);
  });

  test('a later one that fails leaves the first alone', async () => {
    const { base, reader, meaning } = await open();
    reader.held.add('x');
    const x = base.registerAdapter('a', 'x');
    expect(await codeOf(base.registerAdapter('a', 'missing'))).toBe('ERR_ADAPTER_FILE');
    reader.held.clear();
    expect((await x).generation).toBe(meaning());
  });
});

describe('unregistering', () => {
  test('while it is registered again ends that, and waits for every generation', async () => {
    const { base, engine, ask, meaning } = await open({ isCheckHeld: ({ files }) => files[0] === 'third' && isHeld });
    let isHeld = true;
    await base.registerAdapter('a', 'first');
    const running = ask(30);
    await turns(5);
    await base.registerAdapter('a', 'second');
    const again = base.registerAdapter('a', 'third');
    while (!engine.calls.includes('registerAdapter 3')) await turns(1);
    let isFree = false;
    const unregistering = base.unregisterAdapter('a').then(() => (isFree = true));
    await expect(again).rejects.toMatchObject({
      code: 'ERR_ADAPTER_SUPERSEDED',
      message: "adapter 'a' was unregistered by a later call, before this one was done",
    });
    expect(meaning()).toBeUndefined();
    expect(await codeOf(ask().result)).toBe('ERR_ADAPTER_NOT_FOUND');
    expect(isFree).toBe(false);
    isHeld = false;
    expect((await running.result).tokens).toHaveLength(30);
    await unregistering;
    expect(engine.adapters.size).toBe(0);
    expect(meaning()).toBeUndefined();
  });

  test('what is registered for the first time ends that', async () => {
    const { base, reader, engine, meaning } = await open();
    reader.held.add('x');
    const registering = codeOf(base.registerAdapter('a', 'x'));
    await base.unregisterAdapter('a');
    expect(await registering).toBe('ERR_ADAPTER_SUPERSEDED');
    expect(await codeOf(base.unregisterAdapter('a'))).toBe('ERR_ADAPTER_NOT_FOUND');
    await turns(3);
    expect([meaning(), engine.adapters.size]).toEqual([undefined, 0]);
  });

  test('does not end a registration that is called after it, nor one of another tenant', async () => {
    const { base, meaning } = await open();
    await base.registerAdapter('a', 'x');
    const other = base.registerAdapter('a', 'own', { tenant: 't' });
    const unregistering = base.unregisterAdapter('a');
    const again = base.registerAdapter('a', 'y');
    await Promise.all([unregistering, other, again]);
    expect(meaning()).toBe((await again).generation);
    expect(base.adapters.get('a', { tenant: 't' })!.generation).toBe((await other).generation);
  });
});
