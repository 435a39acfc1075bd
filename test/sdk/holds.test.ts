// preload, pin and prefetch on the fake addon.

import { describe, expect, test } from 'vitest';
import { codeOf, openFake, turns } from './fake-parts.js';

const full = { code: 'ERR_OUT_OF_MEMORY', message: 'no room' };

describe('an adapter that is brought nearer ahead', () => {
  test.each([
    [{ preload: 'none' }, undefined],
    [{ preload: 'host' }, 'holdAdapter 1 host'],
    [{ preload: 'device' }, 'holdAdapter 1 device'],
    [{ pin: true }, 'holdAdapter 1 pin'],
    [{ pin: true, preload: 'host' }, 'holdAdapter 1 pin'],
    [{ pin: false, preload: 'host' }, 'holdAdapter 1 host'],
  ] as const)('registered with %j asks the engine for %s', async (options, call) => {
    const { base, engine } = await openFake();
    await base.registerAdapter('a', 'x', options);
    expect(engine.calls.filter((name) => name.startsWith('hold'))).toEqual(call === undefined ? [] : [call]);
    await base.dispose();
    expect(engine.violations).toEqual([]);
  });

  test('is not there for requests before it is held, and not at all if that fails', async () => {
    const { base, engine } = await openFake({ holdsWait: true });
    const registration = base.registerAdapter('a', 'x', { preload: 'device' });
    while (engine.holds.length === 0) await turns(1);
    expect(base.adapters.get('a')).toBeUndefined();
    engine.answerHolds();
    expect((await registration).id).toBe('a');
    expect(base.adapters.get('a')?.id).toBe('a');
    await base.dispose();

    const other = await openFake({ holdFailure: () => full });
    const message = { code: 'ERR_OUT_OF_MEMORY', retryable: true, message: 'no room' };
    await expect(other.base.registerAdapter('a', 'x', { pin: true })).rejects.toMatchObject(message);
    expect([...other.base.adapters.list()]).toEqual([]);
    await turns(3);
    expect(other.engine.adapters.size).toBe(0);
    await other.base.registerAdapter('a', 'x');
    await other.base.dispose();
    expect(other.engine.violations).toEqual([]);
  });

  test('prefetch asks for the host tier, by the name that the tenant knows it by', async () => {
    const { base, engine } = await openFake();
    await base.registerAdapter('a', 'x');
    await base.registerAdapter('a', 'x', { tenant: 't' });
    await Promise.all([base.prefetch('a'), base.prefetch('a', { tenant: 't' }), base.prefetch('a', { tenant: 'u' })]);
    const calls = engine.calls.filter((name) => name.startsWith('hold'));
    expect(calls).toEqual(['holdAdapter 1 host', 'holdAdapter 2 host', 'holdAdapter 1 host']);
    expect(await codeOf(base.prefetch('b'))).toBe('ERR_ADAPTER_NOT_FOUND');
    await base.dispose();
  });

  test('a prefetch that fails rejects with what the engine says, one under way with ERR_CLOSED', async () => {
    const failing = await openFake({ holdFailure: () => ({ code: 'ERR_ADAPTER_CHANGED', message: 'gone' }) });
    await failing.base.registerAdapter('a', 'x');
    expect(await codeOf(failing.base.prefetch('a'))).toBe('ERR_ADAPTER_CHANGED');
    await failing.base.dispose();

    const { base, engine } = await openFake();
    await base.registerAdapter('a', 'x');
    const prefetch = base.prefetch('a');
    engine.crash('ERR_OUT_OF_MEMORY', 'the host is full');
    expect(await codeOf(prefetch)).toBe('ERR_OUT_OF_MEMORY');
    await base.dispose();

    const closing = await openFake();
    await closing.base.registerAdapter('a', 'x');
    const late = closing.base.prefetch('a');
    await Promise.all([closing.base.dispose(), codeOf(late).then((code) => expect(code).toBe('ERR_CLOSED'))]);
  });

  test('a prefetch follows its name, to another generation and to its end', async () => {
    const { base, engine } = await openFake({ holdsWait: true });
    await base.registerAdapter('a', 'x');
    let isDone = false;
    const prefetch = base.prefetch('a').then(() => (isDone = true));
    await base.registerAdapter('a', 'y');
    await turns(2);
    expect([...engine.adapters.keys()]).toEqual([2]);
    engine.answerHolds();
    await turns(2);
    // The engine has forgotten what it was asked for: now it is asked for what the name means.
    expect([isDone, engine.holds.map(({ handle }) => handle)]).toEqual([false, [2]]);
    engine.answerHolds();
    await prefetch;

    const late = base.prefetch('a');
    await base.unregisterAdapter('a', { drain: false });
    engine.answerHolds();
    const message = "adapter 'a' is not registered";
    await expect(late).rejects.toMatchObject({ code: 'ERR_ADAPTER_NOT_FOUND', message });
    await base.dispose();
    expect(engine.violations).toEqual([]);
  });

  test.each([{ pin: true }, { preload: 'device' }] as const)(
    'the same content again, in memory, with %j, is the one that is held',
    async (options) => {
      const { base, engine } = await openFake({ generationOf: () => 'f'.repeat(64) });
      const files = () => ({ config: { peft_type: 'LORA' }, tensors: new Uint8Array(100) });
      await base.registerAdapter('a', files());
      await base.registerAdapter('a', files(), options);
      await turns(3);
      expect([...engine.adapters.keys()]).toEqual([2]);
      await base.prefetch('a');
      expect(engine.calls.at(-1)).toBe('holdAdapter 2 host');
      await base.dispose();
      expect(engine.violations).toEqual([]);
    },
  );

  test('an abort ends a registration that waits for its preload', async () => {
    const { base, engine } = await openFake({ holdsWait: true });
    const controller = new AbortController();
    const registration = base.registerAdapter('a', 'x', { preload: 'host', signal: controller.signal });
    while (engine.holds.length === 0) await turns(1);
    controller.abort();
    expect(await codeOf(registration)).toBe('ERR_ABORTED');
    expect(engine.calls.at(-1)).toBe('unregisterAdapter 1');
    await base.dispose();
  });

  test('what the engine warns of reaches the logger', async () => {
    const logged: unknown[] = [];
    const { base, engine } = await openFake({}, { logger: { warn: (...given: unknown[]) => logged.push(given) } });
    engine.warn('WARN_ADAPTER_CACHE', 'the disk is full');
    expect(logged).toEqual([['the disk is full', { code: 'WARN_ADAPTER_CACHE' }]]);
    await base.dispose();
  });
});
