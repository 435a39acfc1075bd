// The typed mirror of the addon (cpp/napi). Everything that crosses the boundary is a plain value: C++ parses no JSON
// and keeps no JS value after a call returns. Byte offsets and counts are JS numbers (exact up to 2^53).

export type DType = 'f32' | 'f16' | 'bf16';
/** Of adapters and of the KV cache in memory. */
export type HeldDType = DType | 'int8';
/** Of the base's matrices alone: int8 and int4 are no dtypes of a file, of adapters or of the KV cache. */
export type WeightFormat = DType | 'int8' | 'int4';
export const SIMD_LEVELS = ['scalar', 'avx2', 'avx512', 'avx512-vnni', 'neon', 'neon-dotprod'] as const;
export type SimdLevel = (typeof SIMD_LEVELS)[number];

/**
 * Per-layer linear modules, in the order of their site numbers: site = layer * LAYER_SITES.length + index. A model has either
 * the last two or the five that they fuse.
 */
export const LAYER_SITES = [
  'q_proj',
  'k_proj',
  'v_proj',
  'o_proj',
  'gate_proj',
  'up_proj',
  'down_proj',
  'qkv_proj',
  'gate_up_proj',
] as const;
export type LayerSite = (typeof LAYER_SITES)[number];
/** Sites outside the layers: numbers layers * LAYER_SITES.length + index. */
export const MODEL_SITES = ['lm_head', 'embed_tokens'] as const;
export type ModelSite = (typeof MODEL_SITES)[number];

/** What a base tensor is; `layer` is -1 for those outside the layers. `*_bias` are `[out]`, norms are `[dim]`. */
export type WeightRole =
  | 'embed_tokens'
  | 'lm_head'
  | 'final_norm'
  | 'attn_norm'
  | 'mlp_norm'
  | 'attn_post_norm'
  | 'mlp_post_norm'
  | 'q_norm'
  | 'k_norm'
  | LayerSite
  | `${LayerSite}_bias`;

/** A rotary table: `rotaryDim / 2` inverse frequencies, scaling already applied, and a factor on cos and sin. */
export interface RopeSpec {
  invFreq: Float32Array;
  /** Of sequences of more than `ropeSwitch` tokens; empty if that is 0. */
  longInvFreq: Float32Array;
  factor: number;
}

/** How a layer differs from its neighbours. */
export interface LayerSpec {
  /** Positions seen, a token's own included; 0: all. */
  window: number;
  /** Index into `ropes`; -1: no positions. */
  rope: number;
}

/** A decoder's shape, as C++ needs it. Sizes count elements. */
export interface ModelSpec {
  layers: number;
  hidden: number;
  heads: number;
  kvHeads: number;
  headDim: number;
  intermediate: number;
  vocab: number;
  /** Positions that the checkpoint is made for. */
  context: number;
  normEps: number;
  /** Of q·k; 1/sqrt(headDim) for most families. */
  attentionScale: number;
  /** Scores s become cap * tanh(s / cap); 0: they stay. */
  attentionSoftCap: number;
  /** Multiplies the embedding; 1 for most families. */
  embeddingScale: number;
  /** Multiplies what attention and MLP add to the residual stream; 1 for most families. */
  residualScale: number;
  /** Multiplies the logits; 1 for most families. */
  logitScale: number;
  /** Logits l become cap * tanh(l / cap); 0: they stay. */
  logitSoftCap: number;
  /** Added to the gain of every norm; 0 for most families. */
  normOffset: number;
  activation: 'silu' | 'gelu_tanh';
  /** What q and k are normalised over before they are rotated: nothing, each head, or all heads together. */
  qkNorm: 'none' | 'head' | 'all';
  /** Attention and MLP read the normed residual stream. */
  hasPreNorms: boolean;
  /** What they add to it is normed. */
  hasPostNorms: boolean;
  /** q, k and v are one module, and so are gate and up. */
  isFused: boolean;
  /** At most two, of one size. */
  ropes: RopeSpec[];
  /** Sequences of more tokens use `longInvFreq`; 0: none does. */
  ropeSwitch: number;
  /** One for each layer. */
  layerOptions: LayerSpec[];
  /** The head reads the embedding's matrix; no `lm_head` tensor is given. */
  isTied: boolean;
}

/**
 * Rows of numbers, one after the other: src/formats/tables.ts makes them, cpp/napi/table_reader.h reads them. A property read
 * through N-API takes 0.3 µs, and a real base has hundreds of tensors with eight properties each.
 */
export type Table = Float64Array;

/** One tensor in a file: a contiguous row-major `[rows, cols]` matrix (`[1, n]` for vectors). */
export interface TensorRange {
  /** Index into `files`. */
  file: number;
  /** Of the first byte in the file. */
  offset: number;
  bytes: number;
  dtype: DType;
  rows: number;
  cols: number;
}

export interface BaseTensor extends TensorRange {
  role: WeightRole;
  layer: number;
}

export interface NativeLimits {
  /** Bytes of the frame pool, shared by KV cache and adapters. */
  poolBytes: number;
  /** Longest sequence, prompt and answer. 0: the model's context, or what the pool holds of it. */
  maxContext: number;
  /** Rows of a step. */
  maxBatchTokens: number;
  /** That a step of several requests should take at most, whole milliseconds. 0: as long as it takes. */
  maxStepMs: number;
  /** Requests that wait or run; one more is ERR_OVERLOADED. */
  maxQueued: number;
  /** The same of one tenant, for requests that name theirs. */
  maxQueuedPerTenant: number;
  /** Of adapters that a step may read, or one adapter's; 0: twice the weights'. */
  batchLoraBytes: number;
  /** Bytes that packed adapters may take on disk, in the page cache, and of the pool while they are pinned. */
  adapterDiskBytes: number;
  hostAdapterBytes: number;
  pinnedAdapterBytes: number;
}

export interface OpenOptions {
  model: ModelSpec;
  files: string[];
  /** Rows of `BaseTensor`. */
  tensors: Table;
  /** Folder where packed weights are kept for the next start; empty: nowhere. */
  cacheDir: string;
  /** Folder of packed adapters, shared with other processes; empty: each load reads the adapter's own files. */
  adapterDir: string;
  /** Token id → bytes of its text: `bytes[offsets[id] … offsets[id + 1])`; empty for special tokens. */
  tokenBytes: Uint8Array;
  tokenOffsets: Uint32Array;
  /** 'bf16-dot': in bf16, and multiplied by activations that are rounded to bf16 as well. */
  dtype: WeightFormat | 'bf16-dot';
  kvDtype: HeldDType;
  adapterDtype: HeldDType;
  /** 'cpu', or 'cuda:0', … */
  device: string;
  /** Folder of the device images of a GPU. */
  cudaImages: string;
  simd: SimdLevel | 'auto';
  /** 0: the cores that the process may use. */
  threads: number;
  /** Requests share the KV of equal beginnings. */
  prefixCache: boolean;
  limits: NativeLimits;
}

export interface AdapterTensor extends TensorRange {
  site: number;
  matrix: 'A' | 'B';
}

/** How the adapter acts on a site: ΔW = scale · B·A. */
export interface AdapterSite {
  site: number;
  rank: number;
  scale: number;
}

export interface AdapterSpec {
  /** Chosen by the caller; names the adapter in later calls. Never used twice. */
  handle: number;
  files: string[];
  /** Of each file the SHA-256 (hex) up to its tensors' bytes: a file that has another by now is refused (ERR_ADAPTER_CHANGED). */
  headerDigests: string[];
  /** Rows of `AdapterTensor`. */
  tensors: Table;
  /** Rows of `AdapterSite`. */
  sites: Table;
  /** Rows of `BaseTensor`: those that PEFT saved along, refused (ERR_ADAPTER_BASE_TENSOR) unless equal to the base's. */
  baseTensors: Table;
  /** Of each base tensor, for messages. */
  baseTensorNames: string[];
  /** Canonical config and whatever else the generation covers; hashed before the files' content. */
  canonicalConfig: Uint8Array;
}

export interface RequestSpec {
  /** Chosen by the caller, > 0; never used twice. */
  id: number;
  tokens: Uint32Array;
  /** In the request's order; empty for the base alone. */
  adapters: { handle: number; weight: number }[];
  maxTokens: number;
  minTokens: number;
  temperature: number;
  /** 0: all. */
  topK: number;
  topP: number;
  minP: number;
  /** Of the prompt's tokens and the answer's; 1: none. */
  repetitionPenalty: number;
  /** Of the answer's tokens; 0: none. */
  presencePenalty: number;
  frequencyPenalty: number;
  /** Distinct, and what is added to the logit of each; -Infinity forbids it. */
  biasTokens: Uint32Array;
  biasValues: Float32Array;
  /** An integer in [0, 2^53). */
  seed: number;
  stop: string[];
  stopTokens: number[];
  /** Empty when EOS is ignored. */
  eosTokens: number[];
  /** -1: none; n: the chosen token's and the n most likely. */
  logprobs: number;
  promptLogprobs: number;
  /** Whose it is; empty: nobody's. Service is shared among tenants. */
  tenant: string;
  /** Who may share its prefix; empty: its tenant's requests. */
  cacheSalt: string;
  /** Of its tenant's requests, larger goes first. */
  priority: number;
  /** From now; 0: none. */
  deadlineMs: number;
}

export type NativeFinishReason = 'eos' | 'stop' | 'length' | 'cancelled';

/**
 * Rare events, in the order in which they happened. Exactly one `end` or `failed` for each submitted request. `closed` is the
 * last of all: after `close`, after `openFailed`, or when the engine has failed.
 */
export type ControlEvent =
  | { kind: 'progress'; phase: 'weights' | 'pack' | 'cache'; bytesDone: number; bytesTotal: number }
  | {
      kind: 'opened';
      digest: string;
      simd: SimdLevel;
      threads: number;
      weightBytes: number;
      poolBytes: number;
      maxContext: number;
      frameBytes: number;
      weightsFrom: 'files' | 'cache';
      /** Why packed weights couldn't be read or kept; empty if nothing failed. */
      cacheWarning: string;
    }
  | { kind: 'openFailed'; code: string; message: string }
  | { kind: 'adapterReady'; handle: number; generation: string; bytes: number }
  | { kind: 'adapterFailed'; handle: number; code: string; message: string }
  | { kind: 'adapterRetired'; handle: number }
  /** The answer to `holdAdapter`; `code` is empty if it succeeded. */
  | { kind: 'adapterHeld'; ticket: number; code: string; message: string }
  /** No error of anybody's, and somebody should see it. */
  | { kind: 'warning'; code: string; message: string }
  | {
      kind: 'end';
      request: number;
      finishReason: NativeFinishReason;
      input: number;
      output: number;
      cachedInput: number;
      queuedMs: number;
      adapterLoadMs: number;
      ttftMs: number;
      tpotMs: number;
      /** Where each adapter of the request was found when the request was accepted. */
      adapters: { handle: number; tier: NativeTier }[];
    }
  | { kind: 'failed'; request: number; code: string; message: string }
  /** `code` is empty if `close` asked for it. */
  | { kind: 'closed'; code: string; message: string };

/** In the page cache; in the pool; in the pool, and never evicted. */
export type NativeHold = 'host' | 'device' | 'pin';
export type NativeTier = 'registered' | 'host' | 'loading' | 'resident';

/**
 * Called on the JS thread that opened the engine, at most once for each step. `records` is null or a run of token
 * records; those of a request stand before its end. A record is little-endian, 4-byte aligned:
 *
 *     u32 record bytes (a multiple of 4)   u32 request   u32 kind (TOKEN, PROMPT or TEXT)   u32 token
 *     f32 logprob   u32 top count   u32 text bytes   u32 flags (bit 0: has logprob)
 *     { u32 token  f32 logprob } × top count      UTF-8 text, whole characters, padded with zeros to 4 bytes
 *
 * TOKEN: a generated token, and the text that it released (perhaps none: an unfinished character, or the possible
 * beginning of a stop string). PROMPT: the logprob of a prompt token. TEXT: text released by the end, no token.
 */
export type OnEvents = (records: ArrayBuffer | null, events: ControlEvent[]) => void;
export const RECORD_TOKEN = 0;
export const RECORD_PROMPT = 1;
export const RECORD_TEXT = 2;
export const RECORD_HEADER_BYTES = 32;

export interface NativeStats {
  steps: number;
  tokensIn: number;
  tokensOut: number;
  rows: number;
  weightBytesRead: number;
  loraBytesRead: number;
  loraOps: number;
  pageTableReads: number;
  requestsQueued: number;
  requestsRunning: number;
  preemptions: number;
  /** Tokens of prompts that were looked for in the prefix cache, and of these the found ones. */
  prefixTokensLookedUp: number;
  prefixTokensFound: number;
  graphs: { captures: number; replays: number; captureMs: number; bytes: number };
  adaptersResident: number;
  adaptersHost: number;
  adapterLoads: number;
  adapterEvictions: number;
  adapterPacks: number;
  adapterBytesRead: number;
  /** Adapters of accepted requests, by where they were found. */
  adapterHits: Record<NativeTier, number>;
  bytes: {
    base: number;
    kv: number;
    prefix: number;
    adapters: number;
    hostAdapters: number;
    pinnedAdapters: number;
    workspace: number;
    poolFree: number;
    pool: number;
  };
}

/** Every call returns at once; what comes of it arrives as an event. Calls after `close` do nothing. */
export interface NativeEngine {
  registerAdapter(adapter: AdapterSpec): void;
  /** No new request may name it; its memory goes when the last one that does has ended (`adapterRetired`). */
  unregisterAdapter(handle: number): void;
  /** Brings an adapter to a tier ahead of requests; one `adapterHeld` with this ticket says when, or why not. */
  holdAdapter(handle: number, ticket: number, kind: NativeHold): void;
  /** As of the engine's last step; undefined for an unknown handle. */
  adapterTier(handle: number): NativeTier | undefined;
  submit(request: RequestSpec): void;
  cancel(request: number): void;
  /** A paused request keeps its place and its memory, and gets no rows. */
  pause(request: number, isPaused: boolean): void;
  stats(): NativeStats;
  /** Ends every request with ERR_CLOSED, frees everything, then one `closed` event. */
  close(): void;
}

export interface ProbeResult {
  /** Whether this binary can run here. */
  isUsable: boolean;
  reason: string;
  cpuFeatures: string[];
  simdLevels: SimdLevel[];
}

export interface BenchOptions {
  /** `limits`: what the machine gives; `ops`: every op case, each beside the limits. */
  kind: 'limits' | 'ops';
  /** `cpu`, or `cuda:0` and so on: of `limits` the rate of copies within that GPU's memory, read and written, alone. */
  device: string;
  /** The folder of device images. */
  cudaImages: string;
  /** 0: the cores that the process may use. */
  threads: number;
  simd: SimdLevel | 'auto';
  /** Of `limits`. */
  rounds: number;
  /** Of `ops`: a few small cases, two rounds. */
  isQuick: boolean;
  /** Of `ops`: part of a case's description; empty for all. */
  filter: string;
}

/** 10 % of what was measured lie below `low`, 10 % above `high`. `begun` comes first, `ended` last, each once. */
export type BenchEvent =
  | { kind: 'begun'; cpu: string; threads: number; simd: SimdLevel; cacheBytes: number }
  | { kind: 'limit'; name: string; unit: string; median: number; low: number; high: number }
  | {
      kind: 'op';
      op: string;
      what: string;
      /** Of weights, adapters or KV, each read once. */
      bytes: number;
      operations: number;
      usMedian: number;
      usLow: number;
      usHigh: number;
      samples: number;
      /** Measured between the runs. */
      readGbs: number;
      /** The instruction that computes. */
      peak: string;
      peakGops: number;
      /** ‖result - reference‖ / ‖reference‖, and what it may be. */
      error: number;
      errorMax: number;
    }
  /** `code` is empty if nothing failed; ERR_ABORTED after `cancel`. */
  | { kind: 'ended'; code: string; message: string };

/** Asks a measurement to end; it does so after the case that it is at. */
export type CancelBench = () => void;

export interface NativeAddon {
  version: string;
  probe(): ProbeResult;
  /** Loads in a thread of its own: `progress` events, then `opened` or `openFailed`. */
  open(options: OpenOptions, onEvents: OnEvents): NativeEngine;
  /** Measures in a thread of its own, and keeps the process alive until `ended`. */
  bench(options: BenchOptions, onEvent: (event: BenchEvent) => void): CancelBench;
  /** Has the system forget what it holds of a file in memory; false where it can't be asked to. Throws if it can't be opened. */
  forgetPages(path: string): boolean;
}
