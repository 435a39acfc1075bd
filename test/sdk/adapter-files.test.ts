// Adapters that are given in memory or as a stream: what is written where, and that nothing of it stays.

import { mkdirSync, readdirSync, readFileSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { Worker } from 'node:worker_threads';
import { describe, expect, test } from 'vitest';
import { adapterBytesMax } from '../../src/sdk/adapter-source.js';
import type { FakeEngine, FakeOptions } from './fake-native.js';
import { codeOf, fakeFolder, openFake, turns } from './fake-parts.js';
import { useSpool } from './spool-parts.js';

const config = { peft_type: 'LORA' };
const BYTES_MAX = adapterBytesMax(fakeFolder());
const bytesOf = (count: number) => Uint8Array.from({ length: count }, (_, i) => (i * 31 + (i >> 8)) & 255);

const { folder, spooled, opened } = useSpool('spool-test');

async function open(options: FakeOptions = {}) {
  const fake = await openFake(options);
  opened(fake);
  return fake;
}

const fileOf = (engine: FakeEngine, handle = 1) => engine.adapters.get(handle)!.spec.files[0]!;

async function* chunked(bytes: Uint8Array, size: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

describe('the bytes are written to a private file', () => {
  const sizes = [0, 1, 300, BYTES_MAX];
  const bytes = bytesOf(BYTES_MAX);
  const sources: [string, (part: Uint8Array) => Uint8Array | AsyncIterable<Uint8Array>][] = [
    ['a Uint8Array', (part) => part],
    ['a Buffer', (part) => Buffer.from(part)],
    ['a view of shared memory', (part) => { const copy = new Uint8Array(new SharedArrayBuffer(part.length)); copy.set(part); return copy; }],
    ['one chunk', (part) => chunked(part, Infinity)],
    ['chunks of 7 bytes less than a block', (part) => chunked(part, (64 << 10) - 7)],
    ['a stream of Node', (part) => Readable.from(chunked(part, 10_000))],
    ['a web stream', (part) => Readable.toWeb(Readable.from(chunked(part, 65_536)))],
  ]; // prettier-ignore
  test.each(sources)('from %s', async (_, make) => {
    const { base, engine } = await open();
    for (const [i, size] of sizes.entries()) {
      await base.registerAdapter(`a${i}`, { config, tensors: make(bytes.subarray(0, size)) });
      const path = fileOf(engine, i + 1);
      expect(Buffer.compare(readFileSync(path), bytes.subarray(0, size))).toBe(0);
      expect(statSync(path).mode & 0o777).toBe(0o600);
      expect(statSync(join(path, '..')).mode & 0o777).toBe(0o700);
    }
    expect(spooled()).toHaveLength(sizes.length);
  });

  test('of single bytes', async () => {
    const { base, engine } = await open();
    await base.registerAdapter('a', { config, tensors: chunked(bytes.subarray(0, 2000), 1) });
    expect(Buffer.compare(readFileSync(fileOf(engine)), bytes.subarray(0, 2000))).toBe(0);
  });

  test('with its config and template as they were when it was called', async () => {
    const { base } = await open();
    const files = { config: { ...config }, tensors: bytes, chatTemplate: 'mine' };
    const registering = base.registerAdapter('a', files);
    files.config.peft_type = 'IA3';
    files.chatTemplate = 'other';
    await registering;
    expect(base.renderChat([{ role: 'user', content: 'hi' }], { adapter: 'a' })).toBe('[mine]user:hi>');
  });
});

describe('a stream', () => {
  test('is asked for one chunk at a time, which it may use again', async () => {
    const { base, engine } = await open();
    const chunk = new Uint8Array(3);
    let asked = 0;
    let isAsking = false;
    const tensors = {
      [Symbol.asyncIterator]: () => ({
        next: async () => {
          expect(isAsking).toBe(false);
          isAsking = true;
          await turns(1);
          isAsking = false;
          chunk.fill(++asked);
          return asked <= 100 ? { done: false as const, value: chunk } : { done: true as const, value: undefined };
        },
      }),
    };
    await base.registerAdapter('a', { config, tensors });
    const wanted = Array.from({ length: 300 }, (_, i) => 1 + Math.floor(i / 3));
    expect([...readFileSync(fileOf(engine))]).toEqual(wanted);
  });

  test('that never ends is ERR_ADAPTER_SIZE, and told to let go', async () => {
    const { base } = await open();
    let isOver = false;
    let given = 0;
    async function* endless() {
      try {
        for (;;) yield new Uint8Array(10_000 + 0 * given++);
      } finally {
        isOver = true;
      }
    }
    await expect(base.registerAdapter('a', { config, tensors: endless() })).rejects.toMatchObject({
      code: 'ERR_ADAPTER_SIZE',
      message: expect.stringContaining(`at most ${BYTES_MAX}`),
    });
    expect(isOver).toBe(true);
    expect(given).toBe(Math.floor(BYTES_MAX / 10_000) + 1);
    expect(spooled()).toEqual([]);
  });

  test('that never gives a byte is refused, and others run meanwhile', async () => {
    const { base } = await open();
    async function* empty() {
      for (;;) yield new Uint8Array();
    }
    expect(await codeOf(base.registerAdapter('a', { config, tensors: empty() }))).toBe('ERR_ADAPTER_STREAM');
    async function* nearlyEmpty() {
      for (let i = 0; i < 30_000; i++) yield new Uint8Array(i % 1000 === 0 ? 1 : 0);
    }
    let ticks = 0;
    const timer = setInterval(() => ticks++, 1);
    await base.registerAdapter('a', { config, tensors: nearlyEmpty() });
    clearInterval(timer);
    expect(ticks).toBeGreaterThan(0);
  });

  const failing = new Error('the network is gone');
  const streams: [string, () => unknown, unknown][] = [
    ['fails at once', () => ({ [Symbol.asyncIterator]: () => { throw failing; } }), failing],
    ['throws in next', () => ({ [Symbol.asyncIterator]: () => ({ next: () => { throw failing; } }) }), failing],
    ['rejects in next', () => ({ [Symbol.asyncIterator]: () => ({ next: () => Promise.reject(failing) }) }), failing],
    ['fails in the middle', async function* () { yield bytesOf(300_000); throw failing; }, failing],
    ['throws what is no error', async function* () { yield bytesOf(3); throw 'gone'; }, 'gone'], // eslint-disable-line @typescript-eslint/only-throw-error
    ['is an aborted fetch of its own', async function* () { yield bytesOf(3); AbortSignal.abort(failing).throwIfAborted(); }, failing],
    ['gives no result', () => ({ [Symbol.asyncIterator]: () => ({ next: () => 3 }) }), undefined],
    ['gives text', async function* () { yield 'text'; }, undefined],
    ['gives words', async function* () { yield new Uint16Array(4); }, undefined],
    ['gives an array', async function* () { yield [1, 2]; }, undefined],
    ['has no iterator', () => ({ [Symbol.asyncIterator]: () => undefined }), expect.any(TypeError)],
    ['fails when it is let go, too', () => ({ [Symbol.asyncIterator]: () => ({ next: () => ({ value: 1 }), return: () => { throw failing; } }) }), undefined],
  ]; // prettier-ignore
  test.each(streams)('that %s is ERR_ADAPTER_STREAM with its cause', async (_, make, cause) => {
    const { base, engine } = await open();
    const tensors = make() as AsyncIterable<Uint8Array>;
    const error = await base.registerAdapter('a', { config, tensors }).catch((reason: unknown) => reason);
    expect(error).toMatchObject({ code: 'ERR_ADAPTER_STREAM', message: expect.stringContaining('source.tensors') });
    expect((error as Error).cause).toEqual(cause);
    expect(spooled()).toEqual([]);
    expect(engine.calls).toEqual([]);
    await base.registerAdapter('a', { config, tensors: new Uint8Array(3) });
  });

  test.each(['is silent', 'goes on and on'])('that %s ends by the signal', async (how) => {
    const { base } = await open();
    let asked = 0;
    let isLetGo = false;
    const tensors = {
      [Symbol.asyncIterator]: () => ({
        next: () => {
          asked++;
          return how === 'is silent'
            ? new Promise<never>(() => undefined)
            : turns(1).then(() => ({ value: new Uint8Array(1) }));
        },
        return: async () => {
          isLetGo = true;
          return { done: true as const, value: undefined };
        },
      }),
    };
    const controller = new AbortController();
    const registering = base.registerAdapter('a', { config, tensors }, { signal: controller.signal });
    while (asked < (how === 'is silent' ? 1 : 20)) await turns(1);
    controller.abort('mine');
    await expect(registering).rejects.toMatchObject({ code: 'ERR_ABORTED', cause: 'mine' });
    expect(isLetGo).toBe(true);
    expect(spooled()).toEqual([]);
  });

  test('that is silent ends when the base is disposed', async () => {
    const { base } = await open();
    const tensors = { [Symbol.asyncIterator]: () => ({ next: () => new Promise<never>(() => undefined) }) };
    const registering = codeOf(base.registerAdapter('a', { config, tensors }));
    await turns(20);
    await base.dispose();
    expect(await registering).toBe('ERR_CLOSED');
  });
});

describe('bytes', () => {
  test('may change when the call has resolved', async () => {
    const { base, engine } = await open();
    const bytes = bytesOf(300_000);
    await base.registerAdapter('a', { config, tensors: bytes });
    const path = fileOf(engine);
    bytes.fill(0);
    expect(Buffer.compare(readFileSync(path), bytesOf(300_000))).toBe(0);
  });

  test('more than the base can need are refused before any is written', async () => {
    const { base } = await open();
    const tensors = new Uint8Array(BYTES_MAX + 1);
    expect(await codeOf(base.registerAdapter('a', { config, tensors }))).toBe('ERR_ADAPTER_SIZE');
  });

  test('that are taken away while they are read are ERR_ADAPTER_STREAM', async () => {
    const folder = fakeFolder({ spec: { ...fakeFolder().spec, vocab: 2 ** 20 } });
    const fake = await openFake({}, {}, folder);
    opened(fake);
    const { base } = fake;
    const length = 2 ** 26;
    expect(adapterBytesMax(folder)).toBeGreaterThan(length);
    const tensors = new Uint8Array(length);
    const registering = base.registerAdapter('a', { config, tensors });
    while (spooled().length === 0) await turns(1);
    const moved = structuredClone(tensors.buffer, { transfer: [tensors.buffer] });
    expect(moved.byteLength).toBe(length);
    expect(await codeOf(registering)).toBe('ERR_ADAPTER_STREAM');
    expect(spooled()).toEqual([]);
  });
});

describe('the file goes', () => {
  const files = () => ({ config, tensors: bytesOf(1000) });

  test('when its adapter has retired, not before', async () => {
    const { base } = await open();
    await base.registerAdapter('a', files());
    await base.registerAdapter('b', files());
    const running = base.generate({ prompt: 'ab', maxTokens: 50, adapter: 'a' });
    await turns(5);
    const unregistering = base.unregisterAdapter('a');
    await turns(5);
    expect(spooled()).toHaveLength(2);
    await running.result;
    await unregistering;
    expect(spooled()).toHaveLength(1);
    await base.unregisterAdapter('b', { drain: false });
    while (spooled().length > 0) await turns(1);
  });

  test('when the check, the engine or the generation refuses it', async () => {
    let isBad = true;
    const failure = { code: 'ERR_ADAPTER_NOT_FINITE', message: 'NaN in q_proj' };
    const { base } = await open({ adapterFailure: () => (isBad ? failure : undefined) });
    expect(await codeOf(base.registerAdapter('a', { ...files(), config: {} }))).toBe('ERR_ADAPTER_PEFT_TYPE');
    expect(spooled()).toEqual([]);
    expect(await codeOf(base.registerAdapter('a', files()))).toBe('ERR_ADAPTER_NOT_FINITE');
    expect(spooled()).toEqual([]);
    isBad = false;
    const expectedGeneration = 'f'.repeat(64);
    expect(await codeOf(base.registerAdapter('a', files(), { expectedGeneration }))).toBe('ERR_ADAPTER_GENERATION');
    expect(spooled()).toEqual([]);
  });

  test('when the call is aborted, at whatever time', async () => {
    const { base } = await open();
    for (let wait = 0; wait < 12; wait++) {
      const controller = new AbortController();
      const registering = codeOf(base.registerAdapter('a', files(), { signal: controller.signal }));
      await turns(wait);
      controller.abort();
      const code = await registering;
      if (code === 'no error') await base.unregisterAdapter('a');
      else expect(code).toBe('ERR_ABORTED');
      expect(spooled()).toEqual([]);
    }
  });

  test('when the base is disposed, with the folder', async () => {
    const { base } = await open();
    await Promise.all(Array.from({ length: 50 }, (_, i) => base.registerAdapter(`a${i}`, files())));
    expect(spooled()).toHaveLength(50);
    void base.registerAdapter('late', files()).catch(() => undefined);
    await base.dispose();
    expect(readdirSync(folder())).toEqual([]);
  });
});

describe('the folder', () => {
  const files = { config, tensors: bytesOf(10) };

  test('for which there is no place is ERR_IO; it is tried again', async () => {
    const { base } = await open();
    process.env.TMPDIR = join(folder(), 'nowhere');
    expect(await codeOf(base.registerAdapter('a', files))).toBe('ERR_IO');
    process.env.TMPDIR = folder();
    await base.registerAdapter('a', files);
  });

  test('for which there is no place tells a stream that nobody reads to let go, and so does an abort', async () => {
    const { base } = await open();
    const told: string[] = [];
    // What ends a response that an unread stream holds is its own: its iterator holds nothing yet.
    const stream = (name: string) => ({
      cancel: () => void told.push(name),
      [Symbol.asyncIterator]: async function* () {
        yield bytesOf(10);
      },
    });
    process.env.TMPDIR = join(folder(), 'nowhere');
    expect(await codeOf(base.registerAdapter('a', { config, tensors: stream('no place') }))).toBe('ERR_IO');
    process.env.TMPDIR = folder();
    const controller = new AbortController();
    const { signal } = controller;
    const registering = codeOf(base.registerAdapter('a', { config, tensors: stream('abort') }, { signal }));
    controller.abort();
    expect(await registering).toBe('ERR_ABORTED');
    expect(told).toEqual(['no place', 'abort']);
  });

  /** A folder as a process or thread that is gone left it. */
  function leftBy(pid: number, o: { owner?: boolean; namespace?: string } = {}): string {
    const [, own] = /-(\w+)-\d+-\w{6}$/.exec(readdirSync(folder()).find((name) => name.includes(`-${process.pid}-`))!)!;
    const name = `openlora-spool-${o.namespace ?? own}-${pid}-${'aBc123'.slice(0, 5)}${folder().at(-1)}`;
    mkdirSync(join(folder(), name));
    writeFileSync(join(folder(), name, '1.safetensors'), 'secret');
    if (o.owner ?? true) writeFileSync(join(folder(), name, 'owner'), '');
    return join(folder(), name);
  }
  const isThere = (path: string) => readdirSync(folder()).some((name) => path.endsWith(name));

  test('of a process that is gone is removed by the next', async () => {
    const first = await open();
    await first.base.registerAdapter('a', files);
    const gone = leftBy(2 ** 22 + 1);
    const elsewhere = leftBy(2 ** 22 + 2, { namespace: '1' });
    const second = await open();
    await second.base.registerAdapter('a', files);
    expect([isThere(gone), isThere(elsewhere)]).toEqual([false, true]);
    expect(spooled()).toEqual(['1.safetensors', '1.safetensors', '1.safetensors']);
    rmSync(elsewhere, { recursive: true });
  });

  test.skipIf(process.platform !== 'linux')(
    'of a thread that is gone is removed, of one that runs is not',
    async () => {
      const first = await open();
      await first.base.registerAdapter('a', files);
      const worker = new Worker(
        `const { mkdirSync, openSync } = require('node:fs');
       const { workerData, parentPort } = require('node:worker_threads');
       openSync(workerData + '/owner', 'w');
       parentPort.postMessage('open');
       setInterval(() => undefined, 1000);`,
        { eval: true, workerData: leftBy(process.pid, { owner: false }) },
      );
      await new Promise((resolve) => worker.once('message', resolve));
      const count = () => readdirSync(folder()).filter((name) => name.startsWith('openlora-spool-')).length;
      const second = await open();
      await second.base.registerAdapter('a', files);
      expect(count()).toBe(3);
      await worker.terminate();
      const third = await open();
      await third.base.registerAdapter('a', files);
      expect(count()).toBe(3);
    },
  );

  test('that was just made is left alone', async () => {
    const first = await open();
    await first.base.registerAdapter('a', files);
    const young = leftBy(process.pid, { owner: false });
    await (await open()).base.registerAdapter('a', files);
    expect(isThere(young)).toBe(true);
    const old = new Date(Date.now() - 120_000);
    utimesSync(young, old, old);
    await (await open()).base.registerAdapter('a', files);
    expect(isThere(young)).toBe(process.platform !== 'linux');
    rmSync(young, { recursive: true, force: true });
  });
});
