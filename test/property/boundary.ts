// A process of its own for boundary.test.ts: calls of the addon with arguments of every kind. It must neither end nor throw
// anything but a TypeError (or what a getter of the argument itself throws), and must serve a sound request afterwards.

import fc from 'fast-check';
import { readBaseFolder } from '../../src/formats/base-folder.js';
import type {
  AdapterSpec,
  ControlEvent,
  NativeAddon,
  NativeEngine,
  OpenOptions,
  RequestSpec,
} from '../../src/native/binding.js';
import { loadNative } from '../../src/native/load.js';
import { adapterSiteTable, adapterTensorTable, baseTensorTable } from '../../src/formats/tables.js';
import { decodeRecords } from '../../src/sdk/records.js';
import { rawOpenOptions } from '../sdk/real/raw-options.js';

class OwnError extends Error {}

/** What a value can be that is no JSON, and what breaks a reader that trusts it. */
const oddThing: fc.Arbitrary<unknown> = fc.oneof(
  fc.constantFrom<unknown>(
    undefined,
    null,
    true,
    0,
    -0,
    -1,
    0.5,
    NaN,
    Infinity,
    -Infinity,
    1e300,
    2 ** 31,
    2 ** 32,
    2 ** 53,
    -(2 ** 53),
  ),
  fc.constantFrom<unknown>(
    1n,
    Symbol('x'),
    () => 1,
    '',
    'f32',
    'embed_tokens',
    '\ud800',
    'x'.repeat(100_000),
    new Date(),
    /x/,
    new Map(),
  ),
  // Made anew each time: `changed` may put one into another, and numbers into them.
  fc
    .constantFrom<() => unknown>(
      () => [],
      () => ({}),
      () => [[]],
      () => [undefined],
      () => [1, 'a'],
      () => ['a', 1],
      () => [{}],
      () => Object.create(null) as unknown,
      () => new Uint8Array(3),
      () => new Uint32Array(2),
    )
    .map((make) => make()),
  fc
    .constantFrom<() => unknown>(
      () => new Float32Array([NaN]),
      () => new Float64Array(1),
      () => new Float64Array(8).fill(NaN),
      () => new Float64Array(24).fill(2 ** 31),
      () => new BigInt64Array(1),
      () => new DataView(new ArrayBuffer(2)),
      () => new ArrayBuffer(4),
    )
    .map((make) => make()),
  fc.constant(null).map(() => new Array<unknown>(2 ** 32 - 1)),
  fc.constant(null).map(() => new Uint32Array(new SharedArrayBuffer(8))),
  fc.constant(null).map(() => {
    const view = new Uint32Array(16);
    structuredClone(view.buffer, { transfer: [view.buffer] });
    return view; // detached
  }),
  fc.constant(null).map(() =>
    Object.defineProperty({}, 'id', {
      get: () => {
        throw new OwnError();
      },
    }),
  ),
  fc.constant(null).map(
    () =>
      new Proxy([], {
        get: () => {
          throw new OwnError();
        },
      }),
  ),
  fc.constant(null).map(() => new Proxy({}, { get: (_, name) => (name === 'length' ? 3 : {}) })),
  fc.integer(),
  fc.double(),
  fc.uint32Array({ maxLength: 8 }),
  fc.array(fc.oneof(fc.integer(), fc.string()), { maxLength: 4 }),
);

interface Change {
  at: number;
  /** `number`: one of a typed array, where the place is one. */
  how: 'set' | 'remove' | 'getter' | 'number';
  value: unknown;
}
const changes: fc.Arbitrary<Change[]> = fc.array(
  fc.record({
    at: fc.nat(),
    how: fc.constantFrom('set', 'set', 'set', 'remove', 'getter', 'number', 'number'),
    value: oddThing,
  }),
  { maxLength: 2 },
);

function isTree(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !ArrayBuffer.isView(value);
}

function isNumbers(value: unknown): value is Float64Array | Uint32Array | Uint8Array {
  return value instanceof Float64Array || value instanceof Uint32Array || value instanceof Uint8Array;
}

/** A copy with the changes made, each anywhere in it. */
function changed(example: object, list: readonly Change[]): unknown {
  const root: Record<string, unknown> = { value: structuredClone(example) };
  for (const { at, how, value } of list) {
    const places: [Record<string, unknown>, string][] = [];
    const visit = (holder: Record<string, unknown>, name: string): void => {
      places.push([holder, name]);
      const inner = Object.getOwnPropertyDescriptor(holder, name)?.value as unknown;
      // Of a long list a few are enough.
      if (isTree(inner)) for (const next of Object.keys(inner).slice(0, 6)) visit(inner, next);
    };
    visit(root, 'value');
    const [holder, name] = places[at % places.length]!;
    if (how === 'remove') Reflect.deleteProperty(holder, name);
    else if (how === 'number' && isNumbers(holder[name])) {
      holder[name][at % holder[name].length] = typeof value === 'number' ? value : at;
    } else if (how !== 'getter') Reflect.set(holder, name, value);
    else {
      Reflect.defineProperty(holder, name, {
        configurable: true,
        enumerable: true,
        get: () => {
          if (at % 2 === 0) throw new OwnError();
          return value;
        },
      });
    }
  }
  return root.value;
}

function call(run: () => unknown): void {
  try {
    run();
  } catch (error) {
    if (!(error instanceof TypeError || error instanceof OwnError)) throw error;
  }
}

/** An engine, and what became of what it was given. */
class Opened {
  readonly ended = new Map<number, string>();
  /** Requests taken and not ended, by id: chance may give an id again. */
  readonly #running = new Map<number, number>();
  readonly #engine: NativeEngine;
  #onChange: () => void = () => {};
  opened: string | undefined;
  isClosed = false;

  constructor(addon: NativeAddon, options: OpenOptions) {
    this.#engine = addon.open(options, (records, events) => this.#onEvents(records, events));
  }

  get engine(): NativeEngine {
    return this.#engine;
  }

  submit(spec: RequestSpec): void {
    this.#engine.submit(spec);
    this.#running.set(spec.id, (this.#running.get(spec.id) ?? 0) + 1);
  }

  async until(isThere: () => boolean): Promise<void> {
    while (!isThere()) await new Promise<void>((resolve) => (this.#onChange = resolve));
  }

  #onEvents(records: ArrayBuffer | null, events: ControlEvent[]): void {
    if (records) decodeRecords(records, { onToken: () => {}, onPromptLogprob: () => {}, onText: () => {} });
    for (const event of events) {
      if (event.kind === 'opened' || event.kind === 'openFailed') this.opened = event.kind;
      if (event.kind === 'closed') this.isClosed = true;
      if (event.kind !== 'end' && event.kind !== 'failed') continue;
      const running = this.#running.get(event.request) ?? 0;
      if (running === 0) throw new Error(`request ${event.request} ended more often than it was submitted`);
      this.#running.set(event.request, running - 1);
      this.ended.set(event.request, event.kind);
    }
    this.#onChange();
  }
}

const [, , folder, seed, runs] = process.argv;
const base = await readBaseFolder(folder!);
const { binding: addon } = loadNative();
const options: OpenOptions = { ...rawOpenOptions(base), cacheDir: 'packed' };
const request: RequestSpec = {
  id: 1,
  tokens: Uint32Array.of(1, 2, 3),
  adapters: [],
  maxTokens: 4,
  minTokens: 0,
  temperature: 0.5,
  topK: 5,
  topP: 0.9,
  minP: 0.1,
  repetitionPenalty: 1.1,
  presencePenalty: 0.1,
  frequencyPenalty: 0.1,
  biasTokens: Uint32Array.of(4),
  biasValues: Float32Array.of(1),
  seed: 7,
  stop: ['b'],
  stopTokens: [5],
  eosTokens: [2],
  logprobs: 2,
  promptLogprobs: -1,
  tenant: 't',
  cacheSalt: '',
  priority: 0,
  deadlineMs: 0,
};
const embed = base.tensors[0]!;
const { heads, headDim, hidden } = base.spec;
const adapter: AdapterSpec = {
  handle: 1,
  files: base.files,
  headerDigests: base.files.map(() => '0'.repeat(64)),
  tensors: adapterTensorTable([
    { ...embed, site: 0, matrix: 'A', rows: 2, cols: hidden, bytes: 8 * hidden },
    { ...embed, site: 0, matrix: 'B', rows: heads * headDim, cols: 2, bytes: 8 * heads * headDim },
  ]),
  sites: adapterSiteTable([{ site: 0, rank: 2, scale: 0.5 }]),
  baseTensors: baseTensorTable([embed]),
  baseTensorNames: ['embed'],
  canonicalConfig: new Uint8Array(3),
};

const main = new Opened(addon, options);
await main.until(() => main.opened !== undefined);
let next = 1_000_000_007; // where chance seldom hits

/** A request that nothing is wrong with is served, whatever went before. */
async function checkServes(opened: Opened): Promise<void> {
  const id = next++;
  opened.submit({ ...request, id, maxTokens: 2 });
  await opened.until(() => opened.ended.has(id));
  if (opened.ended.get(id) !== 'end') throw new Error('a sound request failed');
}

const calls = fc.oneof(
  fc.tuple(fc.constant('submit' as const), changes),
  fc.tuple(fc.constant('register' as const), changes),
  fc.tuple(
    fc.constantFrom('cancel', 'pause', 'unregisterAdapter', 'adapterTier', 'stats', 'submit*', 'register*'),
    fc.array(oddThing, { maxLength: 3 }),
  ),
);

await fc.assert(
  fc.asyncProperty(fc.array(calls, { maxLength: 6 }), async (list) => {
    const { engine } = main;
    for (const [name, argument] of list) {
      if (name === 'submit') {
        call(() => main.submit(changed({ ...request, id: next++ }, argument) as RequestSpec));
      } else if (name === 'register') {
        call(() => engine.registerAdapter(changed({ ...adapter, handle: next++ }, argument) as never));
      } else {
        const method = name === 'submit*' ? 'submit' : name === 'register*' ? 'registerAdapter' : name;
        call(() => Reflect.apply(engine[method as 'stats'], engine, argument));
      }
    }
    await checkServes(main);
  }),
  { numRuns: Number(runs), seed: Number(seed) },
);

// Options of an engine of its own: it opens or fails by a code, and closes.
await fc.assert(
  fc.asyncProperty(changes, fc.boolean(), async (list, isAtOnce) => {
    let opened: Opened | undefined;
    call(() => (opened = new Opened(addon, changed(options, list) as OpenOptions)));
    if (!opened) return;
    const other = opened;
    if (!isAtOnce) await other.until(() => other.opened !== undefined);
    call(() => other.engine.close());
    await other.until(() => other.isClosed);
    call(() => other.submit(request));
    call(() => other.engine.stats());
  }),
  { numRuns: Math.ceil(Number(runs) / 4), seed: Number(seed) },
);

await checkServes(main);
main.engine.close();
await main.until(() => main.isClosed);
console.log('served');
