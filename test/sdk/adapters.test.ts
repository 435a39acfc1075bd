import { afterEach, describe, expect, test } from 'vitest';
import type { Base } from '../../src/index.js';
import type { FakeEngine, FakeOptions } from './fake-native.js';
import { codeOf, openFake, turns } from './fake-parts.js';

let opened: { base: Base; engine: FakeEngine }[] = [];

async function open(options: FakeOptions = {}) {
  const fake = await openFake(options);
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

describe('registering', () => {
  test('gives what is known of the adapter', async () => {
    const { base } = await open();
    const info = await base.registerAdapter('a', 'adapters/warned');
    expect(info).toEqual({
      id: 'a',
      generation: '1'.padStart(64, '0'),
      rank: { min: 2, max: 8 },
      sites: ['model.layers.0.self_attn.q_proj'],
      parameters: 64,
      bytes: 100,
      dtype: 'bf16',
      tier: 'resident',
      warnings: [{ code: 'ERR_TEST', message: 'another base' }],
    });
    expect(base.adapters.get('a')).toEqual(info);
    expect([...base.adapters.list()]).toEqual([info]);
    expect(base.adapters.stats()).toEqual({
      registered: 1, resident: 1, host: 1, loads: 1, evictions: 0, packs: 2, bytesRead: 3,
      hits: { registered: 4, host: 5, loading: 6, resident: 8 }, bytes: 7, hostBytes: 9, pinnedBytes: 10,
    }); // prettier-ignore
  });

  test('a failure frees the name: of the folder, of the engine', async () => {
    let isBad = true;
    const failure = { code: 'ERR_ADAPTER_NOT_FINITE', message: 'NaN in q_proj' };
    const { base } = await open({ adapterFailure: () => (isBad ? failure : undefined) });
    expect(await codeOf(base.registerAdapter('a', 'missing'))).toBe('ERR_ADAPTER_FILE');
    expect(await codeOf(base.registerAdapter('a', 'x'))).toBe('ERR_ADAPTER_NOT_FINITE');
    expect(base.adapters.get('a')).toBeUndefined();
    isBad = false;
    await base.registerAdapter('a', 'x');
  });

  test('an abort ends it and frees the name, whether the folder is read or the engine has it', async () => {
    const { base, engine } = await open();
    for (const wait of [0, 1]) {
      const controller = new AbortController();
      const registering = base.registerAdapter('a', 'x', { signal: controller.signal });
      for (let i = 0; i < wait; i++) await new Promise((resolve) => setImmediate(resolve));
      controller.abort('mine');
      await expect(registering).rejects.toMatchObject({ code: 'ERR_ABORTED', cause: 'mine' });
    }
    expect(engine.calls.filter((call) => call.startsWith('unreg'))).toEqual(['unregisterAdapter 1']);
    await base.registerAdapter('a', 'x');
    expect(engine.adapters.size).toBe(1);
  });

  test('many at once', async () => {
    const { base } = await open();
    await Promise.all(Array.from({ length: 200 }, (_, i) => base.registerAdapter(`a${i}`, 'x')));
    expect(base.adapters.stats().registered).toBe(200);
  });
});

describe('requests', () => {
  test('use the adapter that they name, and say which', async () => {
    const { base, engine } = await open();
    await base.registerAdapter('a', 'x');
    const { generation } = await base.registerAdapter('b', 'y');
    const result = await base.generate({ prompt: 'hi', maxTokens: 1, adapter: 'b' }).result;
    expect(result.adapters).toEqual([{ id: 'b', generation, tier: 'resident', weight: 1 }]);
    await base.generate({ prompt: 'hi', maxTokens: 1, adapter: [{ id: 'a', weight: 1 }] }).result;
    await base.generate({ prompt: 'hi', maxTokens: 1, adapter: [] }).result;
    expect(engine.submitted.map(({ adapters }) => adapters)).toEqual([
      [{ handle: 2, weight: 1 }],
      [{ handle: 1, weight: 1 }],
      [],
    ]);
  });

  test("are rendered with the adapter's own template", async () => {
    const { base, engine } = await open();
    await base.registerAdapter('a', 'template');
    const messages = [{ role: 'user', content: 'hi' }];
    await base.generate({ messages, maxTokens: 1, adapter: 'a' }).result;
    expect(Buffer.from(engine.submitted[0]!.tokens).toString()).toBe('[own]user:hi>');
    expect(base.renderChat(messages, { adapter: 'a', addGenerationPrompt: false })).toBe('[own]user:hi');
    expect(base.renderChat(messages)).toBe('[base]user:hi>');
  });

  test('that name an unknown adapter are ERR_ADAPTER_NOT_FOUND', async () => {
    const { base } = await open();
    expect(await codeOf(base.generate({ prompt: 'x', adapter: 'a' }).result)).toBe('ERR_ADAPTER_NOT_FOUND');
    expect(await codeOf(() => base.renderChat([{ role: 'user', content: '' }], { adapter: 'a' }))).toBe(
      'ERR_ADAPTER_NOT_FOUND',
    );
    expect(await codeOf(base.unregisterAdapter('a'))).toBe('ERR_ADAPTER_NOT_FOUND');
  });
});

describe('tenants', () => {
  test("find their own adapters first, then the shared ones, and never another's", async () => {
    const { base, engine } = await open();
    await base.registerAdapter('a', 'shared');
    await base.registerAdapter('a', 'own', { tenant: 't' });
    await base.registerAdapter('b', 'own', { tenant: 't' });
    const ask = (adapter: string, tenant?: string) =>
      base.generate({ prompt: 'x', maxTokens: 1, adapter, ...(tenant === undefined ? {} : { tenant }) }).result;
    await ask('a', 't');
    await ask('a', 'u');
    await ask('a');
    await ask('b', 't');
    expect(engine.submitted.map(({ adapters }) => adapters[0]!.handle)).toEqual([2, 1, 1, 3]);
    expect(await codeOf(ask('b', 'u'))).toBe('ERR_ADAPTER_NOT_FOUND');
    expect(await codeOf(ask('b'))).toBe('ERR_ADAPTER_NOT_FOUND');
    expect(base.adapters.get('b')).toBeUndefined();
    expect(base.adapters.get('b', { tenant: 't' })).toMatchObject({ id: 'b', tenant: 't' });
    expect([...base.adapters.list()].map(({ id, tenant }) => [id, tenant])).toEqual([
      ['a', undefined],
      ['a', 't'],
      ['b', 't'],
    ]);
  });

  test('unregister exactly what they name', async () => {
    const { base } = await open();
    await base.registerAdapter('a', 'shared');
    expect(await codeOf(base.unregisterAdapter('a', { tenant: 't' }))).toBe('ERR_ADAPTER_NOT_FOUND');
    await base.registerAdapter('a', 'own', { tenant: 't' });
    await base.unregisterAdapter('a', { tenant: 't' });
    expect(base.adapters.get('a', { tenant: 't' })).toMatchObject({ id: 'a' });
    expect(base.adapters.get('a', { tenant: 't' })).not.toHaveProperty('tenant');
  });
});

describe('unregistering', () => {
  test('hides the name at once and waits for the requests that have it', async () => {
    const { base, engine } = await open();
    await base.registerAdapter('a', 'x');
    const running = base.generate({ prompt: 'ab', maxTokens: 50, adapter: 'a' });
    await turns(5);
    let isFree = false;
    const unregistering = base.unregisterAdapter('a').then(() => (isFree = true));
    expect(base.adapters.get('a')).toBeUndefined();
    expect(await codeOf(base.generate({ prompt: 'x', adapter: 'a' }).result)).toBe('ERR_ADAPTER_NOT_FOUND');
    expect(isFree).toBe(false);
    expect((await running.result).adapters[0]!.id).toBe('a');
    await unregistering;
    expect(engine.adapters.size).toBe(0);
  });

  test('does not lose a request whose prompt is still encoded', async () => {
    const { base, engine, tokenizer } = await open();
    await base.registerAdapter('a', 'x');
    tokenizer.isHeld = true;
    const early = base.generate({ prompt: 'ab', maxTokens: 2, adapter: 'a' });
    const dropped = base.generate({ prompt: 'ab', maxTokens: 2, adapter: 'a' });
    const unregistering = base.unregisterAdapter('a');
    dropped.cancel();
    await turns(5);
    expect(engine.calls).not.toContain('unregisterAdapter 1');
    tokenizer.isHeld = false;
    expect(await early.text()).toBe('ab');
    await unregistering;
    expect(engine.calls.filter((call) => call.startsWith('unreg'))).toEqual(['unregisterAdapter 1']);
  });

  test('with drain: false does not wait', async () => {
    const { base, engine } = await open();
    await base.registerAdapter('a', 'x');
    const running = base.generate({ prompt: 'ab', maxTokens: 50, adapter: 'a' });
    await turns(5);
    await base.unregisterAdapter('a', { drain: false });
    expect(engine.requests.size).toBe(1);
    expect((await running.result).tokens).toHaveLength(50);
  });
});
