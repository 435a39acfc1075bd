// A base with random weights, its adapters and the limits beside them: what decode and prefill measure on.

import type { Base, LoadProgress } from '../../index.js';
import { openBase } from '../base-options.js';
import type { Io } from '../io.js';
import type { ModelFolder } from './model-folder.js';
import { measureLimits, type BegunEvent, type MeasuredLimits } from './native.js';
import { medianOf, type Line, type LineLimits, type Unit } from './report.js';
import type { ModelSettings } from './settings.js';
import { weightsOf, type Shape } from './shapes.js';

const LIMIT_ROUNDS = 3;
const FRAME_TOKENS = 16;
const FRAME_BYTES_MIN = 4096;
const POOL_SPARE = 64 * 2 ** 20;
const KV_BYTES = { f32: 4, bf16: 2, f16: 2, int8: 1 } as const;
/** In int8, of each head. */
const KV_SCALE_BYTES = 2;
/** The instruction that products are computed with. */
const PEAK_OF = { f32: 'f32 fma', bf16: 'f32 fma', f16: 'f32 fma', int8: 'int8 dot', int4: 'int8 dot' } as const;

/** Tokens with which a sequence must fit, and how many sequences run at once. */
export interface Room {
  context: number;
  sequences: number;
}

export class ModelSession {
  readonly #looks: MeasuredLimits[] = [];
  #random = 0x2545f491;

  private constructor(
    readonly base: Base,
    readonly settings: ModelSettings,
    readonly adapterIds: readonly string[],
    /** About loading: in milliseconds and MiB. */
    readonly loading: Line[],
    private readonly signal: AbortSignal,
  ) {}

  /** Loads, registers every adapter, and has each of them answer once. The caller disposes of `base`. */
  static async open(
    folder: Omit<ModelFolder, 'cache'>,
    settings: ModelSettings,
    room: Room,
    io: Io,
  ): Promise<ModelSession> {
    const began = performance.now();
    const { device, dtype, kvDtype, compute, adapterDtype, threads, simd } = settings;
    const memory = String(poolBytes(settings, folder, room));
    const held = { dtype, 'kv-dtype': kvDtype, 'adapter-dtype': adapterDtype };
    const options = { ...held, device, compute, threads, simd, memory, context: room.context };
    let [packing, packed] = [began, began];
    const onPhase = (phase: LoadProgress['phase']) => {
      if (phase === 'weights') packing = performance.now();
      if (phase === 'pack') packed = performance.now();
    };
    // What is measured is computed, whatever prompts have in common.
    const base = await openBase(folder.base, options, io, onPhase, { prefixCache: false });
    try {
      const loaded = performance.now();
      const ids = folder.adapters.map((_, i) => `a${i}`);
      const first = (adapter?: string) =>
        base.generate({ tokens: [1], maxTokens: 1, signal: io.signal, ...(adapter && { adapter }) }).result;
      await first();
      const ready = performance.now();
      for (const [i, path] of folder.adapters.entries())
        await base.registerAdapter(ids[i]!, path, { signal: io.signal });
      await Promise.all(ids.map(first));
      const withAdapters = performance.now();
      const loading = [
        once('load', 'ms', loaded - began),
        once('of it packing', 'ms', packed - packing),
        once('load to the first token', 'ms', ready - began),
        ...(ids.length > 0 ? [once(`${ids.length} adapters to their first tokens`, 'ms', withAdapters - ready)] : []),
        once('weights held', 'MiB', base.stats().bytes.base / 2 ** 20),
      ];
      return new ModelSession(base, settings, ids, loading, io.signal);
    } catch (error) {
      await base.dispose();
      throw error;
    }
  }

  /** To be called before the first look at the limits, which take memory of their own. */
  notePeakMemory(): void {
    this.loading.push(once('peak RSS', 'MiB', process.resourceUsage().maxRSS / 1024));
  }

  /** What the machine gives at this moment; nothing else may run. */
  async look(): Promise<void> {
    const rounds = this.settings.isQuick ? 1 : LIMIT_ROUNDS;
    const { device, threads = 0 } = this.settings;
    this.#looks.push(await measureLimits(threads, rounds, this.signal, device));
  }

  get begun(): BegunEvent {
    return this.#looks[0]!.begun;
  }

  /** How near a run that took `ms` came to what the machine gave in the looks since `first`. */
  limitsOf(first: number, ms: number, bytes: number, operations: number): LineLimits {
    const of = (name: string) => {
      const found = this.#looks.slice(first).flatMap(({ limits }) => limits.filter((limit) => limit.name === name));
      return found.length > 0 ? medianOf(found.map(({ median }) => median)) : undefined;
    };
    const copyGbs = of('copy');
    if (copyGbs !== undefined) return { readGbs: copyGbs, bytes, operations, ofLimit: bytes / copyGbs / 1e6 / ms };
    const wanted = this.settings.compute === 'bf16' ? 'bf16 dot' : PEAK_OF[this.settings.dtype];
    const peak = (of(wanted) ?? 0) > of('f32 fma')! ? wanted : 'f32 fma';
    const [readGbs, peakGops] = [of('read')!, of(peak)!];
    const ofLimit = Math.max(bytes / readGbs, operations / peakGops) / 1e6 / ms;
    return { readGbs, peakGops, peak, bytes, operations, ofLimit };
  }

  get looks(): number {
    return this.#looks.length;
  }

  /** A prompt that nobody had before. */
  prompt(length: number): number[] {
    return Array.from({ length }, () => {
      this.#random ^= this.#random << 13;
      this.#random ^= this.#random >>> 17;
      this.#random ^= this.#random << 5;
      return (this.#random >>> 0) % this.settings.shape.vocab;
    });
  }
}

export function once(name: string, unit: Unit, value: number): Line {
  return { name, unit, better: 'lower', median: value, low: value, high: value, samples: 1 };
}

/** How long a start takes that finds the packed weights in a `cacheDir`; nothing where they can't be kept, which stderr says. */
export async function measureSecondStart(folder: ModelFolder, settings: ModelSettings, io: Io): Promise<Line[]> {
  const { device, dtype, compute, threads, simd } = settings;
  if (device !== 'cpu') return []; // what is packed for a GPU isn't kept
  const options = { dtype, compute, threads, simd, memory: '64MiB', context: FRAME_TOKENS, 'cache-dir': folder.cache };
  await (await openBase(folder.base, options, io)).dispose();
  const began = performance.now();
  const base = await openBase(folder.base, options, io);
  const loaded = performance.now();
  await base.dispose();
  return base.info.weightsFrom === 'cache' ? [once('second start, weights from the cache', 'ms', loaded - began)] : [];
}

type Held = Pick<ModelSettings, 'shape' | 'kvDtype'>;

/** A frame as the engine cuts it, with what stands beside it. */
export function frameBytes({ shape, kvDtype }: Held): { frame: number; scaleBytes: number } {
  const scaleBytes = FRAME_TOKENS * kvScaleBytes(shape, kvDtype);
  const codeBytes = FRAME_TOKENS * kvBytes(shape, kvDtype) - scaleBytes;
  return { frame: Math.max(FRAME_BYTES_MIN, 2 ** Math.ceil(Math.log2(codeBytes))) + scaleBytes, scaleBytes };
}

/** The KV of all sequences. */
export function kvRoom(held: Held, room: Room): number {
  const frames = (Math.ceil(room.context / FRAME_TOKENS) + 1) * held.shape.layers * room.sequences;
  return frames * frameBytes(held).frame;
}

/** Of the pool: the KV of all sequences, and every adapter. */
function poolBytes(settings: ModelSettings, folder: { adapterBytes: number }, room: Room): number {
  const { adapters } = settings;
  const { frame, scaleBytes } = frameBytes(settings);
  // Held in the dtype of the weights, which may be that of the files; ranks that aren't multiples of 8 take 10 % more. A
  // frame of theirs pays for scales as well.
  const held = adapters * (1.1 * folder.adapterBytes * (frame / (frame - scaleBytes)) + frame);
  return Math.ceil(kvRoom(settings, room) + held + POOL_SPARE);
}

/** Of one token in one layer. */
function kvBytes(shape: Shape, kvDtype: ModelSettings['kvDtype']): number {
  return 2 * shape.kvHeads * shape.headDim * KV_BYTES[kvDtype] + kvScaleBytes(shape, kvDtype);
}

/** The part of it that stands beside the frames. */
function kvScaleBytes({ kvHeads }: Shape, kvDtype: ModelSettings['kvDtype']): number {
  return kvDtype === 'int8' ? 2 * kvHeads * KV_SCALE_BYTES : 0;
}

/** Bytes and operations of attention for rows that see `tokens` tokens altogether. */
export function attentionWork(
  { shape, kvDtype }: ModelSettings,
  tokens: number,
): { bytes: number; operations: number } {
  return {
    bytes: tokens * shape.layers * kvBytes(shape, kvDtype),
    operations: 4 * tokens * shape.layers * shape.heads * shape.headDim,
  };
}

/** Operations of the products of `rows` rows, of which `logitRows` need logits and `adapterRows` an adapter. */
export function productWork(settings: ModelSettings, rows: number, logitRows: number, adapterRows: number): number {
  const { layers, head, adapter } = weightsOf(settings.shape, settings.rank);
  return 2 * (layers * rows + head * logitRows + adapter * adapterRows);
}
