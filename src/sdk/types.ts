// The public face of a base: how it is loaded, what it can do, what it says of itself.

import type { SimdLevel } from '../native/binding.js';
import type { ChatMessage, GenerateRequest, Generation, Tier, Tool } from './request-types.js';

export type { SimdLevel } from '../native/binding.js';

/** Bytes as a number, or text such as '8GiB', '500MB', '1.5 GB', '4096B'. */
export type ByteSize = number | string;

export interface LoadProgress {
  /**
   * In this order; `ready` comes once. `weights`: the checkpoint's files are mapped, or those that are packed in `cacheDir` are
   * read. `pack` and `cache`: weights that were not there are packed, and written to `cacheDir` if there is one.
   */
  phase: 'tokenizer' | 'weights' | 'pack' | 'cache' | 'ready';
  bytesDone: number;
  bytesTotal: number;
}

/** Where openlora writes what is no error. Whatever these throw is ignored. */
export interface Logger {
  debug?(message: string, details?: Record<string, unknown>): void;
  info?(message: string, details?: Record<string, unknown>): void;
  warn?(message: string, details?: Record<string, unknown>): void;
}

export interface Limits {
  /**
   * Bytes of the pool that KV cache and adapters share; the weights come on top. At least 1 MiB. Default: KV of 16
   * sequences of full length and 256 MiB for adapters, but no more than half of the memory that is available.
   */
  deviceMemory?: ByteSize;
  /**
   * Bytes of packed adapters that are kept in the system's page cache, tier `host`; the one used longest ago leaves first. 0:
   * none. Default: a quarter of the memory that is available, but no more than 4 GiB. It is memory that the system takes back
   * when it needs it.
   */
  hostAdapterMemory?: ByteSize;
  /** Bytes of `deviceMemory` that pinned adapters may hold; more is ERR_ADAPTER_PIN_LIMIT. Default: half of it. */
  pinnedAdapterMemory?: ByteSize;
  /**
   * Bytes on disk that packed adapters may take, those of all processes that share `cacheDir` together; those used longest ago
   * are removed, down to nine tenths. 0: none are kept, and each load packs the adapter anew. Default: half of what the disk has
   * free when the base is loaded, but no more than 16 GiB.
   */
  adapterCacheDisk?: ByteSize;
  /**
   * Longest sequence in tokens, prompt and answer; at most what the checkpoint is made for. More than `deviceMemory` holds
   * is ERR_LIMITS. Default: what the checkpoint is made for, or what `deviceMemory` holds if that is less.
   */
  maxContext?: number;
  /** Rows of a step, 1 to 65,536: the longest chunk of a prompt, and how many requests can advance at once. Default: 256. */
  maxBatchTokens?: number;
  /**
   * Milliseconds that a step should take at most while there are several requests, 0 to 600,000: a request that comes waits for the
   * end of the step that runs, and the first token of a prompt for its own. Steps get as many rows, from 16 to `maxBatchTokens`, as
   * the ones before took time; answers are the same. 0: as long as it takes. Default: 250.
   */
  maxStepMs?: number;
  /** Requests that wait or run, 1 to 1,000,000; one more is ERR_OVERLOADED. Default: 4096. */
  maxQueued?: number;
  /**
   * Of requests that name their `tenant`: how many of one tenant may wait or run, 1 to 1,000,000; one more is ERR_OVERLOADED, for
   * that tenant alone. Default: half of `maxQueued`, rounded up.
   */
  maxQueuedPerTenant?: number;
  /**
   * Bytes of adapters that a step may read; the least is one adapter. Requests whose adapters would be more take turns. Default:
   * twice the bytes of the weights, so that a step with many adapters takes no more than about three times as long as one without.
   */
  maxBatchLoraBytes?: ByteSize;
}

/**
 * A PEFT adapter in memory or on its way: the same adapter, of the same generation, as a folder with these files. Its tensors
 * are kept in a private file under `os.tmpdir()` until the adapter has retired (docs/api.md).
 */
export interface AdapterFiles {
  /** adapter_config.json, parsed. Copied at once. */
  config: object;
  /**
   * The content of adapter_model.safetensors. A `Uint8Array` is read while `registerAdapter` runs and must stay as it is until
   * that has settled. A stream is asked for one chunk at a time, which is not needed any more when the next one is; when the
   * call fails, it is told to let go (`return`).
   */
  tensors: Uint8Array | AsyncIterable<Uint8Array>;
  /** Jinja, for `messages` of requests that name the adapter. Default: the base's. */
  chatTemplate?: string;
}

export interface LoadBaseOptions {
  /** Folder of a Hugging Face checkpoint: config.json, safetensors, tokenizer.json. */
  path: string;
  /** Default: 'auto', the best there is; today that is the CPU. `cuda:0`, …: a GPU, ERR_CUDA_DRIVER where none can be used. */
  device?: 'auto' | 'cpu' | `cuda:${number}`;
  /**
   * Of the weights in memory. Default: 'auto', the checkpoint's: what config.json's `dtype` or `torch_dtype` names (float32,
   * float16 or bfloat16), else that of most of the weights' bytes. 'int8' takes a byte a weight, embedding and head included;
   * 'int4' half a byte, embedding and head a byte (norms and biases are f32); docs/models.md says how, and what it loses.
   */
  dtype?: 'auto' | 'f32' | 'bf16' | 'f16' | 'int8' | 'int4';
  /** What the base may take of the machine, and how many requests it takes. Default: that of each, there. */
  limits?: Limits;
  /**
   * How products with the base's weights are computed. Default: 'f32'. 'bf16' rounds the activations that they read to bf16, and
   * takes weights in bf16: with another `dtype`, given or the checkpoint's, it is ERR_INVALID_OPTION. Sums stay f32; adapters
   * read the activations as they are. Up to twice as fast on AMD from Zen 4 on, with `simd` 'auto' or 'avx512-vnni'; the same
   * answers at no gain elsewhere. docs/models.md says what it loses.
   */
  compute?: 'f32' | 'bf16';
  /**
   * Of the KV cache. Default: 'auto', that of the weights; beside int8 and int4 weights the checkpoint's, bf16 for one in f32.
   * 'int8' takes a byte an element and 2 bytes for each token, layer and KV head of K and of V: about half of what bf16 takes.
   * docs/models.md says how, and what it loses.
   */
  kvDtype?: 'auto' | 'f32' | 'bf16' | 'f16' | 'int8';
  /**
   * Of adapters in memory. Default: 'auto', that of the weights, whatever was saved; beside int8 and int4 weights as for `kvDtype`.
   * 'int8' takes 17 bits a value, scales included, in place of 16 or 32: docs/api.md says what it loses.
   */
  adapterDtype?: 'auto' | 'int8';
  /** Default: 'auto', the best that the processor has. */
  simd?: 'auto' | SimdLevel;
  /**
   * Threads that compute, 1 to 1024. Default: the cores that the process may use (hyperthreads of one core counted once), no more
   * than its control group lets run at once. It changes no result.
   */
  threads?: number;
  /** Default: 'invariant', a request's answer is the same alone and in any batch, bit for bit. 'fast' is ERR_NOT_SUPPORTED. */
  numerics?: 'invariant' | 'fast';
  /** Refuses adapters that name another base in `base_model_name_or_path` (default: a warning in `AdapterInfo`). */
  strictBase?: boolean;
  /**
   * Folder where the packed weights are kept, one file of their size for each base and `dtype`; it is made if it is missing. The
   * next start maps the file instead of packing, and processes share its memory. A change of the checkpoint's files makes another
   * file; none is ever removed. Packed adapters are kept in its folder `adapters` (docs/api.md). A file that can't be read or
   * written is the warning WARN_BASE_CACHE, not an error. Whoever can write there can change what the base answers. Default: none
   * is kept.
   */
  cacheDir?: string;
  /**
   * Requests share the KV of prompts that begin alike, and so does the next turn of a chat: in blocks of up to 16 tokens, for
   * the same adapters, within what `cacheSalt` and `tenant` allow. It takes memory of `limits.deviceMemory` that nothing else
   * needs, and changes no result, bit for bit. Default: true.
   */
  prefixCache?: boolean;
  /** Ends loading: everything is freed, then `loadBase` rejects with ERR_ABORTED. Without effect afterwards. */
  signal?: AbortSignal;
  /** Called while the base loads, `ready` last, and not after `signal` was aborted. What it throws is ignored. */
  onProgress?: (progress: LoadProgress) => void;
  /** Told what is no error, also after loading. Default: nobody. */
  logger?: Logger;
  /** Asked for adapters that a request names and nobody registered. Default: none, such a request is ERR_ADAPTER_NOT_FOUND. */
  adapterResolver?: AdapterResolver;
  /** Time, number and memory of what `adapterResolver` is asked. Default: that of each, there. */
  resolverLimits?: ResolverLimits;
}

/**
 * Where an adapter comes from that isn't registered for `tenant`, nor shared: the path of a PEFT folder, the adapter itself, or
 * null if there is none (ERR_ADAPTER_NOT_FOUND). What it gives is registered under (tenant, id), where requests of that tenant
 * (without one: those that have none) find it. It is asked once, however many requests wait; each keeps its own `deadlineMs`
 * and `signal`. `signal` is aborted when no request waits any more, when the time is over, and when the base is disposed. What
 * it throws fails the requests that wait: an OpenLoraError as it is, anything else as ERR_ADAPTER_RESOLVER with that `cause`.
 */
export type AdapterResolver = (
  id: string,
  options: { signal: AbortSignal; tenant?: string },
) => Promise<string | AdapterFiles | null>;

/** What `adapterResolver` may take. */
export interface ResolverLimits {
  /**
   * Milliseconds for the resolver and for reading what it gave, 1 to 2^31 - 1; then ERR_ADAPTER_RESOLVER_TIMEOUT. Waiting for
   * `maxConcurrent` doesn't count. Default: 60,000.
   */
  timeoutMs?: number;
  /** Ids that are resolved at once, 1 to 10,000; others wait, and tenants take turns. Default: 16. */
  maxConcurrent?: number;
  /**
   * Milliseconds, 0 to 2^31 - 1, for which an id that got null, or an error that isn't retryable, gets the same again without
   * asking. Registering the id ends it. Default: 10,000.
   */
  missTtlMs?: number;
  /** How many of these are remembered, 0 to 1,000,000; the oldest go first. Default: 10,000. */
  maxMisses?: number;
  /** Adapters from the resolver that stay registered, 1 to 10,000,000; the least recently used is unregistered. Default: 10,000. */
  maxResolved?: number;
}

export interface BaseInfo {
  /** `llama`, `qwen2`, … */
  family: string;
  /** Elements of all weights; a tied head counts once. */
  parameters: number;
  /** Of the weights in memory. */
  dtype: string;
  /** Of the KV cache. */
  kvDtype: 'f32' | 'bf16' | 'f16' | 'int8';
  device: string;
  /** Longest sequence in tokens, prompt and answer. */
  contextLength: number;
  vocabSize: number;
  /** Every module that an adapter can act on. */
  sites: { name: string; in: number; out: number }[];
  /** SHA-256 of the shape, the list of tensors and the first 4 KiB of each: tells checkpoints apart, proves no more. */
  digest: string;
  /** Whether the weights were packed out of the checkpoint's files, or found packed in `cacheDir`. */
  weightsFrom: 'files' | 'cache';
  /** What the checkpoint's files ask for and openlora doesn't do, and what `cacheDir` couldn't be used for. */
  warnings: { code: string; message: string }[];
}

export interface AdapterInfo {
  id: string;
  /** Whose it is, if it was registered for a tenant. */
  tenant?: string;
  /** SHA-256 of the content. */
  generation: string;
  rank: { min: number; max: number };
  /** Names of the modules that it acts on. */
  sites: string[];
  parameters: number;
  /** Held while it is resident. */
  bytes: number;
  /** Of its values in memory. */
  dtype: string;
  tier: Tier;
  warnings: { code: string; message: string }[];
}

export interface RegisterOptions {
  /**
   * It is loaded before this resolves, and never evicted. ERR_ADAPTER_PIN_LIMIT when more than `limits.pinnedAdapterMemory` would
   * be pinned, ERR_OUT_OF_MEMORY (retryable) when requests and pinned adapters hold too much of `deviceMemory` at present; it
   * isn't registered then. Default: false.
   */
  pin?: boolean;
  /**
   * How near it is when this resolves. 'host': packed, in the page cache; ERR_ADAPTER_HOST_LIMIT where it is larger than
   * `limits.hostAdapterMemory`. 'device': in `deviceMemory`, in place of adapters that nobody uses; ERR_OUT_OF_MEMORY as for `pin`.
   * Packing takes only processors that nobody else wants. Default: 'none', the first request packs and loads it.
   */
  preload?: 'none' | 'host' | 'device';
  /** Only this tenant's requests find it, 1 to 256 characters. Default: shared by all. */
  tenant?: string;
  /**
   * Compare and set: the generation (64 hexadecimal digits) that exactly (tenant, id) must have when the new one takes its
   * place, or null, no adapter of that id; otherwise ERR_ADAPTER_GENERATION, and all stays as it is. Default: whatever there
   * is, or nothing.
   */
  expectedGeneration?: string | null;
  /** Ends the registration, which rejects with ERR_ABORTED; what the id meant before stays. */
  signal?: AbortSignal;
}

export interface AdapterStats {
  registered: number;
  resident: number;
  /** In the page cache; resident ones may be, too. */
  host: number;
  /** Since the base was loaded: into `deviceMemory`, out of it, and files that were packed. */
  loads: number;
  evictions: number;
  packs: number;
  /** Of adapters' own files and of packed ones, to make them, load them, and bring them to the page cache. */
  bytesRead: number;
  /** Adapters of requests, by the tier in which each was found. */
  hits: Record<Tier, number>;
  /** Held by resident adapters; of packed ones in the page cache; held or promised to pinned ones. */
  bytes: number;
  hostBytes: number;
  pinnedBytes: number;
}

/** Counters since the base was loaded, and what is held now. Bytes unless said otherwise. */
export interface EngineStats {
  steps: number;
  tokensIn: number;
  tokensOut: number;
  /** Rows of all steps, and of a step on average. */
  rows: number;
  rowsPerStep: number;
  weightBytesRead: number;
  loraBytesRead: number;
  loraOps: number;
  pageTableReads: number;
  preemptions: number;
  /** Requests. */
  queue: { waiting: number; running: number };
  adapters: AdapterStats;
  /** Tokens of prompts that were looked for in the prefix cache, and of these the found ones. */
  prefix: { tokensLookedUp: number; tokensFound: number };
  /**
   * CUDA graphs, on a GPU: steps of one shape are recorded the second time and replayed from then on, whatever adapters they
   * have. What recording took, and the bytes of device memory that records hold.
   */
  graphs: { captures: number; replays: number; captureMs: number; bytes: number };
  bytes: {
    base: number;
    /** Of running requests; what several share counts once. */
    kv: number;
    /** KV that no request uses at present; goes when memory is short. */
    prefix: number;
    adapters: number;
    hostAdapters: number;
    pinnedAdapters: number;
    workspace: number;
    pool: number;
    poolFree: number;
  };
}

export interface BaseTokenizer {
  /**
   * In the tokenizer's worker thread. `addSpecialTokens`: BOS and the like, whatever the text begins with (`generate` adds no
   * BOS to a prompt that has one). `parseSpecialTokens`: text that spells a special token becomes that token. Both default
   * to true.
   */
  encode(text: string, options?: { addSpecialTokens?: boolean; parseSpecialTokens?: boolean }): Promise<Uint32Array>;
  /** `skipSpecialTokens`: special tokens leave no text; default true. Throws ERR_TOKEN_RANGE. */
  decode(ids: ArrayLike<number>, options?: { skipSpecialTokens?: boolean }): string;
}

export interface BaseAdapters {
  /** An adapter by its id; a tenant's own before the shared one. */
  get(id: string, options?: { tenant?: string }): AdapterInfo | undefined;
  /** All of them, every tenant's; made as it is read. */
  list(): Iterable<AdapterInfo>;
  stats(): AdapterStats;
}

/**
 * A base in memory and its engine. Every call after `dispose` fails with ERR_CLOSED. It may be used from the thread that
 * loaded it; other threads load their own.
 */
export interface Base extends AsyncDisposable {
  readonly info: BaseInfo;
  readonly tokenizer: BaseTokenizer;
  readonly adapters: BaseAdapters;
  /**
   * A conversation as text, by the base's template or by the adapter's own. `addGenerationPrompt`: whether it ends with
   * the head of the answer; default true. Throws ERR_CHAT_TEMPLATE_MISSING, ERR_CHAT_TEMPLATE, ERR_ADAPTER_NOT_FOUND.
   */
  renderChat(
    messages: readonly ChatMessage[],
    options?: { tools?: readonly Tool[]; addGenerationPrompt?: boolean; adapter?: string; tenant?: string },
  ): string;
  /**
   * Checks a PEFT folder, or one that is given in memory, hashes it, and makes it known under `id` (1 to 256 characters). An id
   * that is taken gets a new generation: requests find the old one until the new one is checked, then the new one; those that
   * found the old one finish with it, and its memory is freed after the last. A failure leaves the old one as it was. Of
   * several calls for one id the one that was called last wins: those before that are not done by then reject with
   * ERR_ADAPTER_SUPERSEDED. Rejects with what docs/errors.md lists under adapters.
   */
  registerAdapter(id: string, source: string | AdapterFiles, options?: RegisterOptions): Promise<AdapterInfo>;
  /**
   * Hides the name at once, and ends registrations of it that run (ERR_ADAPTER_SUPERSEDED); requests made before finish with what
   * they found. `drain`: whether to resolve only when the last of them has ended and the memory of all generations is free;
   * default true. Rejects with ERR_ADAPTER_NOT_FOUND.
   */
  unregisterAdapter(id: string, options?: { drain?: boolean; tenant?: string }): Promise<void>;
  /**
   * Brings an adapter to tier `host`, or finds it nearer: packs it if it isn't packed yet, on processors that nobody else wants,
   * and reads it; where the id is registered again meanwhile, the new one. `adapterResolver` isn't asked. Where packed adapters
   * can't be kept (WARN_ADAPTER_CACHE), it changes nothing. Rejects with ERR_ADAPTER_NOT_FOUND, ERR_ADAPTER_HOST_LIMIT, and with
   * what a load may fail with.
   */
  prefetch(id: string, options?: { tenant?: string }): Promise<void>;
  /** Never throws: every error arrives through the iterator and `.result`. */
  generate(request: GenerateRequest): Generation;
  stats(): EngineStats;
  /** Resolves when every request made before has ended. New ones are accepted and not waited for. */
  drain(): Promise<void>;
  /** Ends every request with ERR_CLOSED, frees everything, then resolves. May be called again. */
  dispose(): Promise<void>;
}
