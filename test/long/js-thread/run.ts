// What js-thread.test.ts measures; bundled, and run in a process of its own. Arguments: the kind of run, the folder of a
// base or of a tokenizer, and folders of adapters. Prints the turns as JSON.

import { setImmediate as nextTurn } from 'node:timers/promises';
import { openFolderReader } from '../../../src/formats/index.js';
import { openTokenizer, type Tokenizer } from '../../../src/formats/tokenizer.js';
import { loadNativeInTurns } from '../../../src/native/load.js';
import { createLoadBase } from '../../../src/sdk/load-base.js';
import type { Base } from '../../../src/sdk/types.js';
import { Meter } from './meter.js';

const NATIVE_CALLS = [
  'registerAdapter',
  'unregisterAdapter',
  'submit',
  'cancel',
  'pause',
  'stats',
  'adapterTier',
] as const;
const TEXT = 'The quick brown fox jumps over the lazy dog, 12345 times — naïve café 🦊.\n'.repeat(100);
const MESSAGES = [
  { role: 'system', content: 'Be brief.' },
  { role: 'user', content: TEXT },
];
const ROUNDS = 100;

const [kind, folder, ...adapters] = process.argv.slice(2) as [string, string, ...string[]];
const meter = new Meter();

/** The addon, with every call into it and every callback out of it named. */
async function namedNative() {
  const native = await loadNativeInTurns();
  const { binding } = native;
  const open: typeof binding.open = (options, onEvents) => {
    const engine = meter.call('native open', () =>
      binding.open(options, (records, events) => meter.call('onEvents', () => onEvents(records, events))),
    );
    for (const name of NATIVE_CALLS) {
      const call = engine[name].bind(engine) as (...args: unknown[]) => unknown;
      Object.defineProperty(engine, name, {
        value: (...args: unknown[]) => meter.call(`native ${name}`, () => call(...args)),
      });
    }
    return engine;
  };
  return { ...native, binding: { ...binding, open } };
}

/** In a turn of its own: what a caller does in one turn is not ours to bound. */
async function call<T>(name: string, action: () => T): Promise<T> {
  await nextTurn();
  return meter.call(name, action);
}

async function load(): Promise<Base> {
  meter.phase = 'load';
  const loadBase = createLoadBase({ loadNative: namedNative, openFolderReader, openTokenizer });
  return call('loadBase', () => loadBase({ path: folder, limits: { deviceMemory: '512MiB', maxContext: 4096 } }));
}

async function register(base: Base): Promise<void> {
  meter.phase = 'register';
  const registered: Promise<unknown>[] = [];
  for (const [i, path] of adapters.entries())
    registered.push((await call('registerAdapter', () => ({ info: base.registerAdapter(`a${i}`, path) }))).info);
  await Promise.all(registered);
  await call('adapters.list', () => [...base.adapters.list()]);
}

async function tokenise(
  tokenizer: Pick<Tokenizer, 'encode' | 'decode'>,
  render: () => string,
  encodeChat: () => Promise<unknown>,
): Promise<void> {
  meter.phase = 'tokenise';
  const ids = await call('encode', () => tokenizer.encode(TEXT));
  for (let i = 0; i < ROUNDS; i++) {
    await call('encode', () => tokenizer.encode(TEXT));
    await call('encodeChat', encodeChat);
    await call('decode', () => tokenizer.decode(ids.subarray(0, 2000)));
    await call('renderChat', render);
  }
}

function tokeniseBy(base: Base): Promise<void> {
  return tokenise(
    base.tokenizer,
    () => base.renderChat(MESSAGES),
    () => base.generate({ messages: MESSAGES.slice(0, 1), maxTokens: 1 }).result,
  );
}

async function generate(base: Base, rounds: number, requests: number, maxTokens: number): Promise<void> {
  meter.phase = 'generate';
  for (let round = 0; round < rounds; round++) {
    const readers: Promise<unknown>[] = [];
    for (let i = 0; i < requests; i++) {
      const generation = await call('generate', () =>
        base.generate({
          prompt: 'hello '.repeat(1 + (i % 20)),
          maxTokens,
          ignoreEos: true,
          logprobs: 2,
          adapter: `a${i % adapters.length}`,
        }),
      );
      readers.push(
        (async () => {
          for await (const _ of generation) if (i % 16 === 0) break;
          await call('stats', () => base.stats());
        })(),
      );
    }
    await Promise.all(readers);
  }
}

const KINDS: Record<string, () => Promise<void>> = {
  tiny: async () => {
    const base = await load();
    await register(base);
    await tokeniseBy(base);
    await generate(base, 12, 64, 64);
    meter.phase = 'dispose';
    await call('dispose', () => base.dispose());
  },
  tokenizer: async () => {
    meter.phase = 'load';
    const tokenizer = await call('openTokenizer', () => openTokenizer({ folder }));
    await tokenise(
      tokenizer,
      () => tokenizer.renderChat(MESSAGES),
      () => tokenizer.encodeChat(MESSAGES),
    );
    meter.phase = 'dispose';
    await call('dispose', () => tokenizer.dispose());
  },
  real: async () => {
    const base = await load();
    await register(base);
    await tokeniseBy(base);
    await generate(base, 1, 16, 24);
    meter.phase = 'dispose';
    await call('dispose', () => base.dispose());
  },
};

await meter.warmUp();
await KINDS[kind]!();
process.stdout.write(JSON.stringify(await meter.finish()));
