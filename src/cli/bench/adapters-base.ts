// A base with some adapters of the folder registered, and its memory.

import type { Base, Tier } from '../../index.js';
import { openBase } from '../base-options.js';
import type { Io } from '../io.js';
import { runLoop, type LoopRequest, type LoopResult, type SeededRandom } from './adapter-trace.js';
import { adapterFile, cacheWithoutPacks, packFiles, type AdaptersFolder } from './adapters-folder.js';
import { frameBytes, kvRoom, type Room } from './model-session.js';
import { forgetPages } from './native.js';
import type { Line } from './report.js';
import { longestAnswer, type AdaptersSettings } from './settings.js';

export interface AdaptersContext {
  settings: AdaptersSettings;
  folder: AdaptersFolder;
  io: Io;
  add: (...lines: Line[]) => void;
  /** Of prompts. */
  random: SeededRandom;
}

/** Answers that run beside the others, and their tokens. */
export const LISTENERS = 2;
const LISTEN_TOKENS = 64;
const POOL_MIN = 2 ** 20;
/** From one answer's length to the next one's, within those that there are. */
const LENGTH_STEP = 7;
/** The least that fits, beyond one adapter for each request at once. */
const ADAPTERS_SPARE = 2;
/** Held bytes over those of the files' values, at most. */
const HELD = { eights: 1.02, others: 1.1 } as const;
/** Of int8 with its scales, over a value in bf16. */
const INT8_OF_BF16 = 17 / 32;

export interface AdaptersMemory {
  /** Adapters that fit beside the KV of all requests. */
  fitting?: number | undefined;
  /** In place of it the bytes of the pool; more where not even those fit that run at once. */
  poolBytes?: number;
  /** Of the host tier. Default: the engine's. */
  hostBytes?: number | undefined;
  /** Whether answers are listened to, beside the requests that run at once. */
  hasListeners?: boolean;
  /** With weights of its own in memory, not those of a file that bases share. */
  isAlone?: boolean;
  /** Keeps no packed adapters: other bases find none that it read, in memory or on disk. */
  hasNoPacks?: boolean;
  /** Every adapter is loaded when it is registered, and stays. */
  isPinned?: boolean;
}

export class AdaptersBase {
  #registered = 0;

  private constructor(
    private readonly context: AdaptersContext,
    readonly base: Base,
    /** How many adapters fit beside the KV of all requests. */
    readonly fitting: number,
    /** As the base was given them; of the host tier undefined: the engine's own. */
    readonly poolBytes: number,
    readonly hostBytes: number | undefined,
    private readonly memory: AdaptersMemory,
  ) {}

  static async open(context: AdaptersContext, memory: AdaptersMemory): Promise<AdaptersBase> {
    const { settings, folder, io } = context;
    const room = roomOf(settings, memory.hasListeners ?? false);
    const [kv, each] = [kvRoom(settings, room), heldBytes(context)];
    const least = kv + (settings.atOnce + ADAPTERS_SPARE) * each;
    const wanted = memory.fitting === undefined ? Math.max(memory.poolBytes ?? 0, least) : kv + memory.fitting * each;
    const pool = Math.ceil(Math.max(wanted, POOL_MIN));
    const { dtype, kvDtype, compute, adapterDtype, threads, simd } = settings;
    const { isAlone = false, hasNoPacks = false, isPinned = false } = memory;
    const hostBytes = memory.hostBytes === undefined ? undefined : Math.ceil(memory.hostBytes);
    const options = {
      ...{ dtype, 'kv-dtype': kvDtype, 'adapter-dtype': adapterDtype, compute, threads, simd },
      ...{ memory: String(pool), context: room.context },
      ...(isAlone ? {} : { 'cache-dir': hasNoPacks ? cacheWithoutPacks(folder) : folder.cache }),
      ...(hostBytes === undefined ? {} : { hostMemory: hostBytes }),
      ...(isPinned ? { pinnedMemory: pool } : {}),
      adapterDisk: hasNoPacks ? 0 : folder.packBytesMax,
    };
    const base = await openBase(folder.base, options, io);
    return new AdaptersBase(context, base, Math.floor((pool - kv) / each), pool, hostBytes, memory);
  }

  get registered(): number {
    return this.#registered;
  }

  readonly idOf = (adapter: number): string => `a${adapter}`;

  /** The next `count` of the folder; how long each took, in milliseconds. */
  async register(count: number): Promise<number[]> {
    const { folder, io } = this.context;
    const ms: number[] = [];
    for (const end = this.#registered + count; this.#registered < end; this.#registered++) {
      const began = performance.now();
      const path = folder.adapters[this.#registered]!;
      const options = { signal: io.signal, ...(this.memory.isPinned ? { pin: true } : {}) };
      await this.base.registerAdapter(this.idOf(this.#registered), path, options);
      ms.push(performance.now() - began);
    }
    return ms;
  }

  /** All of them. */
  async unregister(): Promise<void> {
    while (this.#registered > 0) await this.base.unregisterAdapter(this.idOf(--this.#registered));
  }

  /**
   * Files that are read from now on come from the disk; packed ones too, which an earlier base may have left in the page cache.
   * Before the base has read any: from then on those in the page cache are its host tier, and the engine drops what leaves it.
   */
  forgetFiles(): void {
    const { folder } = this.context;
    const packs = this.memory.isAlone || this.memory.hasNoPacks ? [] : packFiles(folder.cache);
    for (const path of folder.adapters.slice(0, this.#registered)) forgetPages(adapterFile(path));
    for (const path of packs) forgetPages(path);
  }

  /** One token for each of the first `count` adapters, the first one last: it is the most popular. */
  async warm(count: number): Promise<LoopResult> {
    const few = Math.min(count, this.#registered);
    return this.#short(
      Array.from({ length: few }, (_, i) => few - 1 - i),
      true,
    );
  }

  tierOf(adapter: number): Tier {
    return this.base.adapters.get(this.idOf(adapter))!.tier;
  }

  /** Packs the adapters from `first` to before `end` that aren't, one after another; how long each took, in milliseconds. */
  async pack(first: number, end: number): Promise<number[]> {
    const ms: number[] = [];
    for (let adapter = first; adapter < end; adapter++) {
      this.context.io.signal.throwIfAborted();
      const began = performance.now();
      await this.base.prefetch(this.idOf(adapter));
      ms.push(performance.now() - began);
    }
    return ms;
  }

  /** One token for each request of a trace: what follows finds the memory as such a trace leaves it. */
  async settle(trace: readonly (number | undefined)[], forgets: boolean): Promise<void> {
    await this.#short(trace, forgets);
  }

  /** Answers a trace; answers differ in length, so that they don't go in step. `forgets`: each adapter's own file that was read is forgotten again; packed ones are the engine's affair. */
  async run(trace: readonly (number | undefined)[], forgets: boolean): Promise<LoopResult> {
    const { tokens } = this.context.settings;
    const lengthOf = (i: number) => Math.max(1, (tokens >> 1) + ((i * LENGTH_STEP) % (tokens + 1)));
    return this.#loop(
      trace.map((adapter, i) => ({ ...this.request(adapter), maxTokens: lengthOf(i) })),
      forgets,
    );
  }

  /** One after another. */
  async runAlone(trace: readonly number[]): Promise<LoopResult> {
    return this.#short(trace, true, 1);
  }

  request(adapter: number | undefined): LoopRequest {
    return { adapter, tokens: this.prompt(), maxTokens: this.context.settings.tokens };
  }

  /** That nobody had before: no prefix of it is in a cache. */
  readonly prompt = (): number[] => {
    const { settings, random } = this.context;
    return Array.from({ length: settings.prompt }, () => random.below(settings.shape.vocab));
  };

  close(): Promise<void> {
    return this.base.dispose();
  }

  /** One token for each request of a trace. */
  #short(trace: readonly (number | undefined)[], forgets: boolean, atOnce?: number): Promise<LoopResult> {
    const requests = trace.map((adapter) => ({ ...this.request(adapter), maxTokens: 1 }));
    return this.#loop(requests, forgets, atOnce);
  }

  #loop(requests: readonly LoopRequest[], forgets: boolean, atOnce = this.context.settings.atOnce) {
    const { folder, io } = this.context;
    return runLoop(
      {
        ...{ atOnce, baseOf: () => this.base, idOf: this.idOf, signal: io.signal },
        onServed: ({ adapter, tier }) => {
          if (forgets && tier !== 'resident') forgetPages(adapterFile(folder.adapters[adapter]!));
        },
      },
      requests,
    );
  }
}

/** Of an answer that is listened to, at the most. */
export const listenTokens = ({ shape, prompt }: AdaptersSettings) => Math.min(LISTEN_TOKENS, shape.context - prompt);

function roomOf(settings: AdaptersSettings, hasListeners: boolean): Room {
  const { prompt, tokens, atOnce } = settings;
  const longest = longestAnswer(tokens);
  if (!hasListeners) return { context: prompt + longest, sequences: atOnce };
  return { context: prompt + Math.max(longest, listenTokens(settings)), sequences: atOnce + LISTENERS };
}

/** Of one adapter in memory, in whole frames. */
export function heldBytes({ settings, folder }: AdaptersContext): number {
  const { frame, scaleBytes } = frameBytes(settings);
  const { adapterDtype, dtype, rank } = settings;
  const values = folder.adapterBytes * (adapterDtype === 'int8' ? INT8_OF_BF16 / (dtype === 'f32' ? 2 : 1) : 1);
  const frames = Math.ceil(((rank % 8 === 0 ? HELD.eights : HELD.others) * values) / (frame - scaleBytes)) + 1;
  return frames * frame;
}
