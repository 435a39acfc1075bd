// The state matrix on the real addon: every public method in every state, beside work that has to end as the state says.
// Runs in the test and in a worker thread.

import { createReadStream, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { loadBase, type Base, type GenerateRequest } from '../../../src/index.js';
import { codeOf } from '../fake-parts.js';
import { expectedOf, isDisposal, METHODS, type RealState } from '../state-matrix.js';
import { writeAdapter, writeTinyCheckpoint, type TinyCheckpoint } from './tiny-checkpoint.js';

export const LONG = { prompt: 'hello', maxTokens: 1000, ignoreEos: true };
const SHORT = { ...LONG, maxTokens: 24 };

/** With every module, 580 KiB in f32: of two in the smallest pool (1 MiB) only one is resident at a time. */
const RIVAL_RANK = 160;
const RIVAL_MODULES = ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj'];
const RIVALS = ['rival 0', 'rival 1'] as const;
/** Of each rival, side by side. */
const REQUESTS = 2;

/** Plain data: it travels to the worker thread. */
export interface MatrixFiles extends TinyCheckpoint {
  rivals: string[];
}

/** The caller removes `root`. */
export function writeMatrixFiles(): MatrixFiles {
  const files = writeTinyCheckpoint();
  const rivals = RIVALS.map((name, i) => writeAdapter(join(files.root, name), RIVAL_RANK, 200 + i, RIVAL_MODULES));
  return { ...files, rivals };
}

export interface Cell {
  method: string;
  state: RealState;
  /** 'ok', or the code of the error. */
  outcome: string;
  /** Of what was under way in that state: 'ok', a code, or what differed. */
  underWay: string;
}

export function expectedState(state: RealState): Cell[] {
  const hasWork = state === 'loading' || state === 'generating' || state === 'evicting';
  return Object.keys(METHODS).map((method) => {
    const underWay = hasWork && isDisposal(method) ? 'ERR_CLOSED' : 'ok';
    return { method, state, outcome: expectedOf(method, state), underWay };
  });
}

/** Ends what is under way, where the method has not ended it, and says how it went. */
type UnderWay = () => Promise<string>;

const outcomeOf = async (action: Promise<unknown> | (() => unknown)): Promise<string> => {
  const code = await codeOf(action);
  return code === 'no error' ? 'ok' : code;
};

async function open(state: RealState, files: MatrixFiles): Promise<Base> {
  const deviceMemory = state === 'evicting' ? '1MiB' : '8MiB';
  const base = await loadBase({ path: files.base, limits: { deviceMemory } });
  await base.registerAdapter('a', files.adapters[0]!);
  if (state === 'evicting')
    for (const [i, name] of RIVALS.entries()) await base.registerAdapter(name, files.rivals[i]!);
  return base;
}

/** A reader so slow that back-pressure keeps the request in flight for a while. */
async function beginGenerating(base: Base, alone: string): Promise<UnderWay> {
  const generation = base.generate(LONG);
  const iterator = generation[Symbol.asyncIterator]();
  await iterator.next();
  void (async () => {
    while (!(await iterator.next()).done) await sleep(1);
  })().catch(() => undefined);
  return () => outcomeOrDifference(generation.text(), alone);
}

async function outcomeOrDifference(text: Promise<string>, alone: string): Promise<string> {
  const outcome = await outcomeOf(text);
  return outcome === 'ok' && (await text) !== alone ? 'another answer than alone' : outcome;
}

/** Requests of both rivals, one after another without a pause: each that is admitted evicts the other's adapter. */
async function beginEvicting(base: Base, alone: readonly string[]): Promise<UnderWay> {
  let isStopping = false;
  const ask = async (rival: number): Promise<string> => {
    let outcome = 'ok';
    while (outcome === 'ok' && !isStopping) {
      const text = base.generate({ ...SHORT, adapter: RIVALS[rival]! }).text();
      outcome = await outcomeOrDifference(text, alone[rival]!);
    }
    return outcome;
  };
  const asking = Promise.all([0, 1].flatMap((rival) => Array.from({ length: REQUESTS }, () => ask(rival))));
  const evictions = async (count: number) => {
    const enough = base.stats().adapters.evictions + count;
    while (base.stats().adapters.evictions < enough) await sleep(1);
  };
  await Promise.race([asking, evictions(RIVALS.length)]);
  return async () => {
    // Once more after the method, which so was called in the midst; a closed base evicts nothing.
    await Promise.race([asking, evictions(RIVALS.length).catch(() => undefined)]);
    isStopping = true;
    return [...new Set(await asking)].join(', ');
  };
}

/** What the requests under way answer when nothing else runs. */
async function answersAlone(state: RealState, base: Base): Promise<string[]> {
  const requests: GenerateRequest[] =
    state === 'evicting' ? RIVALS.map((adapter) => ({ ...SHORT, adapter })) : state === 'generating' ? [LONG] : [];
  const texts: string[] = [];
  for (const request of requests) texts.push(await base.generate(request).text());
  if (state === 'evicting' && base.stats().adapters.evictions === 0) throw new Error('the pool holds both rivals');
  return texts;
}

async function begin(state: RealState, base: Base, files: MatrixFiles, alone: string[]): Promise<UnderWay> {
  if (state === 'generating') return beginGenerating(base, alone[0]!);
  if (state === 'evicting') return beginEvicting(base, alone);
  if (state === 'closing') void base.dispose();
  if (state === 'closed') await base.dispose();
  if (state !== 'loading') return () => Promise.resolve('ok');
  const loading = outcomeOf(base.registerAdapter('c', files.adapters[2]!));
  return () => loading;
}

/** So that the next method finds the base as the first one did. */
async function restore(base: Base, files: MatrixFiles): Promise<void> {
  for (const id of ['b', 'c']) if (base.adapters.get(id)) await base.unregisterAdapter(id);
  if (!base.adapters.get('a')) await base.registerAdapter('a', files.adapters[0]!);
  await base.drain();
}

/** Every method in one state, in the order of METHODS. */
export async function runState(state: RealState, files: MatrixFiles): Promise<Cell[]> {
  const folder = files.adapters[1]!;
  const config = JSON.parse(readFileSync(join(folder, 'adapter_config.json'), 'utf8')) as object;
  const weights = join(folder, 'adapter_model.safetensors');
  const methods: typeof METHODS = {
    ...METHODS,
    registerAdapter: (base) => base.registerAdapter('b', folder),
    'registerAdapter preloaded': (base) => base.registerAdapter('b', folder, { preload: 'host' }),
    'registerAdapter pinned': (base) => base.registerAdapter('b', folder, { pin: true }),
    'registerAdapter of bytes': (base) => base.registerAdapter('b', { config, tensors: readFileSync(weights) }),
    'registerAdapter of a stream': (base) => base.registerAdapter('b', { config, tensors: createReadStream(weights) }),
  };
  let base = await open(state, files);
  const alone = await answersAlone(state, base);
  try {
    if (state === 'closing' || state === 'closed') {
      // The state lasts no longer than the first wait: all are called at once.
      await begin(state, base, files, alone);
      const call = async ([method, action]: [string, (base: Base) => unknown]): Promise<Cell> => {
        return { method, state, outcome: await outcomeOf(async () => action(base)), underWay: 'ok' };
      };
      return await Promise.all(Object.entries(methods).map(call));
    }
    const cells: Cell[] = [];
    for (const [method, action] of Object.entries(methods)) {
      const underWay = await begin(state, base, files, alone);
      const outcome = await outcomeOf(async () => action(base));
      cells.push({ method, state, outcome, underWay: await underWay() });
      if (isDisposal(method)) base = await open(state, files);
      else await restore(base, files);
    }
    return cells;
  } finally {
    await base.dispose();
  }
}
