// What 10,000 registered adapters take of the JS heap.

import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { describe, expect, test } from 'vitest';
import { singleTemplate } from '../../src/formats/chat-template.js';
import type { AdapterDescription, BaseSite } from '../../src/formats/types.js';
import { LAYER_SITES, type NativeAddon, type OnEvents } from '../../src/native/binding.js';
import { SharedValues, SiteSets } from '../../src/sdk/adapter-record.js';
import { createLoadBase } from '../../src/sdk/load-base.js';
import type { Base } from '../../src/sdk/types.js';
import { fakeAddon, generationOfHandle } from './fake-native.js';
import { fakeAdapter, fakeFolder, FakeReader, FakeTokenizer } from './fake-parts.js';

setFlagsFromString('--expose-gc');
const gc = runInNewContext('gc') as () => void;

const COUNT = 10_000;
/** A base of 32 layers. */
const SITES: BaseSite[] = Array.from({ length: 32 * LAYER_SITES.length }, (_, site) => ({
  name: `model.layers.${Math.floor(site / LAYER_SITES.length)}.mlp.${LAYER_SITES[site % LAYER_SITES.length]!}`,
  site,
  in: 8,
  out: 8,
}));
/** What a folder of today has: nearly every module, a chat template, and another name for the base. */
const DESCRIPTION: AdapterDescription = {
  ...fakeAdapter('x').info,
  parameters: 2 ** 33,
  sites: SITES.slice(3, 250).map(({ name }) => name),
  warnings: [{ code: 'WARN_ADAPTER_BASE_NAME', message: `made for ${'y'.repeat(100)}, the base is x` }],
  chat: singleTemplate('{% for message in messages %}'.repeat(200)),
};

/** An addon that keeps nothing of an adapter: what the heap holds is the SDK's. */
async function openForgetful(): Promise<Base> {
  const addon: NativeAddon = {
    ...fakeAddon(),
    open: (options, onEvents: OnEvents) => {
      const engine = fakeAddon().open(options, onEvents);
      engine.registerAdapter = ({ handle }) => {
        // Flat, as the addon's are.
        const generation = Buffer.from(generationOfHandle(handle)).toString('latin1');
        setImmediate(() => onEvents(null, [{ kind: 'adapterReady', handle, generation, bytes: 2 ** 32 }]));
      };
      engine.unregisterAdapter = (handle) =>
        void setImmediate(() => onEvents(null, [{ kind: 'adapterRetired', handle }]));
      return engine;
    },
  };
  return createLoadBase({
    loadNative: () => ({ binding: addon, path: 'fake', variant: 'cpu', rejected: [] }),
    openFolderReader: async () => {
      const reader = new FakeReader(fakeFolder({ sites: SITES }));
      // As the worker thread posts it: none of its strings is another's.
      reader.readAdapter = async (path) => ({ ...fakeAdapter(path), info: structuredClone(DESCRIPTION) });
      return reader;
    },
    openTokenizer: async () => new FakeTokenizer(),
  })({ path: '/nowhere/base' });
}

function heapBytes(): number {
  gc();
  gc();
  return process.memoryUsage().heapUsed;
}

/** Ids of 36 characters, each a piece of a text of 10 KB. */
const idOf = (i: number) => `${'i'.repeat(30)}${String(i).padStart(6, '0')}${'x'.repeat(10_000)}`.slice(0, 36);

async function registerAll(base: Base, from: number, to: number): Promise<void> {
  for (let i = from; i < to; i += 100) {
    await Promise.all(
      Array.from({ length: Math.min(100, to - i) }, (_, k) => base.registerAdapter(idOf(i + k), 'x', { tenant: 't' })),
    );
  }
}

describe('registered adapters', () => {
  test(`take some 450 bytes each of ${COUNT}, and nothing when they are gone`, async () => {
    const base = await openForgetful();
    await registerAll(base, 0, 200);
    const before = heapBytes();
    await registerAll(base, 200, 200 + COUNT);
    const each = (heapBytes() - before) / COUNT;
    process.stdout.write(`memory: a registered adapter: ${each.toFixed(0)} bytes\n`);
    // An entry of 14 fields (136), its key (56), generation (80) and sites (56), two numbers beyond 2^31 (32), and its share of a
    // hash map that doubles (46 to 92): 406 to 452. What else the heap of a test does is 1 MB at the most, 100 bytes each.
    // A list of 247 names alone would be 2 KB, a promise with what settles it 200 to 300 bytes.
    expect(each).toBeLessThan(560);
    expect(base.adapters.get(idOf(COUNT), { tenant: 't' })).toMatchObject({
      id: idOf(COUNT),
      tenant: 't',
      sites: DESCRIPTION.sites,
      parameters: 2 ** 33,
      bytes: 2 ** 32,
      warnings: DESCRIPTION.warnings,
      rank: { min: 2, max: 8 },
    });
    for (let i = 200; i < 200 + COUNT; i++) await base.unregisterAdapter(idOf(i), { tenant: 't' });
    const left = (heapBytes() - before) / COUNT;
    process.stdout.write(`memory: an adapter that is gone: ${left.toFixed(0)} bytes\n`);
    // An entry that stays would be 400 bytes; of hash maps that shrink, a quarter stays.
    expect(left).toBeLessThan(200);
    await base.dispose();
  });
});

describe('sets of sites', () => {
  test('give back the names that they were made of, in the order of their numbers', () => {
    const sets = new SiteSets([...SITES].reverse());
    const names = SITES.map(({ name }) => name);
    const lists = [[], names, [names[0]!], [names.at(-1)!], names.filter((_, i) => i % 3 === 0), names.slice(7, 9)];
    for (const list of lists) expect(sets.unpack(sets.pack([...list].reverse()))).toEqual(list);
    expect(sets.pack(names)).toHaveLength(SITES.length / 8);
    expect(() => sets.pack(['model.norm'])).toThrow('model.norm is no site of the base');
  });
});

describe('shared values', () => {
  test('are kept once, for as long as somebody has them', () => {
    const values = new SharedValues<{ x: number }>();
    const [a, b, other] = [values.take({ x: 1 }), values.take({ x: 1 }), values.take({ x: 2 })];
    expect(a).toBe(b);
    expect(other.value).toEqual({ x: 2 });
    expect(values.size).toBe(2);
    values.release(a);
    values.release(undefined);
    expect(values.take({ x: 1 })).toBe(b);
    for (const shared of [b, b, other]) values.release(shared);
    expect(values.size).toBe(0);
  });
});
