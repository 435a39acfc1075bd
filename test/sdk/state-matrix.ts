// Every public method in every state: what is called and what comes of it. Runs in the test and in a worker thread.

import { OpenLoraError } from '../../src/errors.js';
import type { Base } from '../../src/sdk/types.js';
import { openFake, turns } from './fake-parts.js';

export const STATES = ['idle', 'loading', 'generating', 'closing', 'closed'] as const;
export type State = (typeof STATES)[number];
/** The engine's own: only the real one has a pool in which adapters evict each other. */
export const REAL_STATES = [...STATES, 'evicting'] as const;
export type RealState = (typeof REAL_STATES)[number];

const messages = [{ role: 'user', content: 'hi' }];
const config = { peft_type: 'LORA' };

async function* stream(): AsyncGenerator<Uint8Array> {
  for (let i = 0; i < 3; i++) yield new Uint8Array(100).fill(i);
}

/** Each on a base that has an adapter 'a'. */
export const METHODS: Record<string, (base: Base) => unknown> = {
  info: (base) => base.info.digest,
  'generate().result': (base) => base.generate({ prompt: 'ab', maxTokens: 2 }).result,
  'generate().text()': (base) => base.generate({ tokens: [97], maxTokens: 2, adapter: 'a' }).text(),
  'generate() iterated': async (base) => {
    for await (const _ of base.generate({ messages, maxTokens: 2 }));
  },
  'generate() cancelled': (base) => {
    const generation = base.generate({ prompt: 'ab' });
    generation.cancel();
    return generation.result;
  },
  'generate() disposed': (base) => base.generate({ prompt: 'ab' })[Symbol.asyncDispose](),
  registerAdapter: (base) => base.registerAdapter('b', 'x'),
  'registerAdapter of bytes': (base) => base.registerAdapter('b', { config, tensors: new Uint8Array(300) }),
  'registerAdapter of a stream': (base) => base.registerAdapter('b', { config, tensors: stream() }),
  'registerAdapter preloaded': (base) => base.registerAdapter('b', 'x', { preload: 'device' }),
  'registerAdapter pinned': (base) => base.registerAdapter('b', 'x', { pin: true }),
  unregisterAdapter: (base) => base.unregisterAdapter('a'),
  prefetch: (base) => base.prefetch('a'),
  renderChat: (base) => base.renderChat(messages, { adapter: 'a' }),
  'tokenizer.encode': (base) => base.tokenizer.encode('ab'),
  'tokenizer.decode': (base) => base.tokenizer.decode([97]),
  'adapters.get': (base) => base.adapters.get('a'),
  'adapters.list': (base) => [...base.adapters.list()],
  'adapters.stats': (base) => base.adapters.stats(),
  stats: (base) => base.stats(),
  drain: (base) => base.drain(),
  dispose: (base) => base.dispose(),
  'Symbol.asyncDispose': (base) => base[Symbol.asyncDispose](),
};

export const isDisposal = (method: string) => method === 'dispose' || method === 'Symbol.asyncDispose';

/** 'ok', or the code of the error. */
export function expectedOf(method: string, state: RealState): string {
  // A generation's own disposal never fails, whatever became of the request.
  if (isDisposal(method) || method === 'info' || method === 'generate() disposed') return 'ok';
  if (state === 'closing' || state === 'closed') return 'ERR_CLOSED';
  return 'ok';
}

async function outcomeOf(action: () => unknown): Promise<string> {
  try {
    await action();
    return 'ok';
  } catch (error) {
    return OpenLoraError.is(error) ? error.code : String(error);
  }
}

export interface Cell {
  method: string;
  state: State;
  outcome: string;
  /** Of what was under way in that state: 'ok', or a code; each has to be what the state says. */
  underWay: string;
  violations: string[];
}

export async function runCell(method: string, state: State): Promise<Cell> {
  const { base, engine, tokenizer } = await openFake();
  await base.registerAdapter('a', 'x');
  let underWay: Promise<string> = Promise.resolve('ok');
  if (state === 'loading') underWay = outcomeOf(() => base.registerAdapter('c', 'x'));
  if (state === 'generating') {
    underWay = outcomeOf(async () => {
      const text = await base.generate({ prompt: 'ab', maxTokens: 40 }).text();
      if (text !== 'ab'.repeat(20)) throw new Error(`the neighbour said ${text}`);
    });
    await turns(3);
  }
  if (state === 'closing') void base.dispose();
  if (state === 'closed') await base.dispose();
  const outcome = await outcomeOf(() => METHODS[method]!(base));
  const found = await underWay;
  await base.dispose();
  const leaks = engine.isClosed && tokenizer.isDisposed ? [] : ['something was not freed'];
  return { method, state, outcome, underWay: found, violations: [...engine.violations, ...leaks] };
}

export function expectedCell(method: string, state: State): Cell {
  const isEnded = isDisposal(method) && (state === 'loading' || state === 'generating');
  const underWay = isEnded ? 'ERR_CLOSED' : 'ok';
  return { method, state, outcome: expectedOf(method, state), underWay, violations: [] };
}

export async function runMatrix(): Promise<Cell[]> {
  const cells: Cell[] = [];
  for (const state of STATES) {
    for (const method of Object.keys(METHODS)) cells.push(await runCell(method, state));
  }
  return cells;
}

export function expectedMatrix(): Cell[] {
  return STATES.flatMap((state) => Object.keys(METHODS).map((method) => expectedCell(method, state)));
}
