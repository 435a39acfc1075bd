// What `loadBase` was given: checked, with its defaults.

import { freemem, totalmem } from 'node:os';
import { resolve } from 'node:path';
import { OpenLoraError } from '../errors.js';
import {
  SIMD_LEVELS,
  type HeldDType,
  type ModelSpec,
  type NativeHold,
  type NativeLimits,
  type SimdLevel,
  type WeightFormat,
} from '../native/binding.js';
import { parseByteSize, showBytes } from './byte-size.js';
import { notSupportedError } from './errors.js';
import type {
  AdapterResolver,
  Limits,
  LoadBaseOptions,
  LoadProgress,
  Logger,
  RegisterOptions,
  ResolverLimits,
} from './types.js';
import {
  checkBoolean,
  checkFunction,
  checkInteger,
  checkKeys,
  checkName,
  checkObject,
  checkOneOf,
  checkPath,
  checkSignal,
  invalid,
} from './validate.js';

export const MAX_BATCH_TOKENS_DEFAULT = 256;
export const MAX_STEP_MS_DEFAULT = 250;
export const MAX_QUEUED_DEFAULT = 4096;
const POOL_BYTES_MIN = 2 ** 20;
const ADAPTER_DISK_DEFAULT = 2 ** 34;
const HOST_ADAPTERS_DEFAULT = 2 ** 32;

// prettier-ignore
const LOAD_KEYS = {
  path: 0, device: 0, dtype: 0, limits: 0, compute: 0, kvDtype: 0, adapterDtype: 0, simd: 0, threads: 0, numerics: 0,
  strictBase: 0, cacheDir: 0, prefixCache: 0, signal: 0, onProgress: 0, logger: 0, adapterResolver: 0, resolverLimits: 0,
} satisfies Record<keyof LoadBaseOptions, 0>;
// prettier-ignore
const LIMIT_KEYS = {
  deviceMemory: 0, hostAdapterMemory: 0, pinnedAdapterMemory: 0, adapterCacheDisk: 0, maxContext: 0, maxBatchTokens: 0,
  maxStepMs: 0, maxQueued: 0, maxQueuedPerTenant: 0, maxBatchLoraBytes: 0,
} satisfies Record<keyof Limits, 0>;
// prettier-ignore
const RESOLVER_KEYS = {
  timeoutMs: 0, maxConcurrent: 0, missTtlMs: 0, maxMisses: 0, maxResolved: 0,
} satisfies Record<keyof ResolverLimits, 0>;
// prettier-ignore
const REGISTER_KEYS = {
  pin: 0, preload: 0, tenant: 0, expectedGeneration: 0, signal: 0,
} satisfies Record<keyof RegisterOptions, 0>;

const HELD_DTYPES = ['f32', 'bf16', 'f16', 'int8'] as const;
const WEIGHT_FORMATS = [...HELD_DTYPES, 'int4'] as const;

const INT32_MAX = 2 ** 31 - 1;

export type CheckedResolverLimits = Required<ResolverLimits>;

export type Compute = NonNullable<LoadBaseOptions['compute']>;

type LaterLimits = 'poolBytes' | 'hostAdapterBytes' | 'pinnedAdapterBytes' | 'adapterDiskBytes' | 'maxContext';
export type CheckedLimits = Omit<NativeLimits, LaterLimits> & Record<LaterLimits, number | undefined>;

export interface CheckedLoadOptions {
  path: string;
  /** 'cpu', or 'cuda:0', … */
  device: string;
  dtype: WeightFormat | 'auto';
  compute: Compute;
  kvDtype: HeldDType | 'auto';
  adapterDtype: 'auto' | 'int8';
  simd: SimdLevel | 'auto';
  /** 0: the cores that the process may use. */
  threads: number;
  /** Those that depend on the checkpoint are undefined until `resolveLimits`. */
  limits: CheckedLimits;
  strictBase: boolean;
  /** Absolute; empty: none. */
  cacheDir: string;
  prefixCache: boolean;
  signal: AbortSignal | undefined;
  onProgress: ((progress: LoadProgress) => void) | undefined;
  logger: Logger;
  adapterResolver: AdapterResolver | undefined;
  resolverLimits: CheckedResolverLimits;
}

export function checkLoadOptions(given: unknown): CheckedLoadOptions {
  const o = checkObject('loadBase', given) as Partial<Record<keyof LoadBaseOptions, unknown>>;
  checkKeys('loadBase', o, LOAD_KEYS);
  refuseLater(o);
  const device = checkDevice(o.device ?? 'auto');
  return {
    path: checkPath('path', o.path),
    device,
    ...checkComputing(o),
    kvDtype: checkOneOf('kvDtype', o.kvDtype ?? 'auto', ['auto', ...HELD_DTYPES]),
    adapterDtype: checkOneOf('adapterDtype', o.adapterDtype ?? 'auto', ['auto', 'int8']),
    simd: checkOneOf('simd', o.simd ?? 'auto', ['auto', ...SIMD_LEVELS]),
    threads: o.threads === undefined ? 0 : checkInteger('threads', o.threads, 1, 1024),
    limits: checkLimits(o.limits, device),
    strictBase: o.strictBase === undefined ? false : checkBoolean('strictBase', o.strictBase),
    cacheDir: o.cacheDir === undefined ? '' : resolve(checkPath('cacheDir', o.cacheDir)),
    prefixCache: o.prefixCache === undefined ? true : checkBoolean('prefixCache', o.prefixCache),
    signal: o.signal === undefined ? undefined : checkSignal('signal', o.signal),
    onProgress: checkCallback(o.onProgress),
    logger: checkLogger(o.logger),
    adapterResolver: checkResolver(o.adapterResolver),
    resolverLimits: checkResolverLimits(o.resolverLimits),
  };
}

function refuseLater(o: Partial<Record<keyof LoadBaseOptions, unknown>>): void {
  if (checkOneOf('numerics', o.numerics ?? 'invariant', ['invariant', 'fast']) === 'fast') {
    throw notSupportedError("numerics: 'fast'", "use 'invariant'");
  }
}

function checkComputing(
  o: Partial<Record<keyof LoadBaseOptions, unknown>>,
): Pick<CheckedLoadOptions, 'dtype' | 'compute'> {
  const dtype = checkOneOf('dtype', o.dtype ?? 'auto', ['auto', ...WEIGHT_FORMATS]);
  const compute = checkOneOf('compute', o.compute ?? 'f32', ['f32', 'bf16']);
  if (dtype !== 'auto') checkComputes(compute, dtype);
  return { dtype, compute };
}

/** bf16 multiplies bf16 and nothing else. */
export function checkComputes(compute: Compute, dtype: WeightFormat): void {
  if (compute === 'bf16' && dtype !== 'bf16') {
    invalid('compute', compute, `'f32' with weights in ${dtype}, or dtype 'bf16' beside it`);
  }
}

/** 'auto' is the CPU: nothing is known yet of how a GPU does. */
function checkDevice(value: unknown): string {
  if (typeof value === 'string' && /^cuda:\d{1,3}$/.test(value)) return value;
  checkOneOf('device', value, ['auto', 'cpu', 'cuda:0']);
  return 'cpu';
}

/** Whether a GPU computes, with memory of its own. */
export const isCuda = (device: string): boolean => device !== 'cpu';

function checkLimits(given: unknown, device: string): CheckedLoadOptions['limits'] {
  const o = checkObject('limits', given ?? {}) as Partial<Record<keyof Limits, unknown>>;
  checkKeys('limits', o, LIMIT_KEYS);
  const bytes = (key: keyof Limits) => (o[key] === undefined ? undefined : parseByteSize(`limits.${key}`, o[key]));
  const maxQueued = checkCount('limits.maxQueued', o.maxQueued ?? MAX_QUEUED_DEFAULT);
  return {
    poolBytes: o.deviceMemory === undefined ? undefined : checkPoolBytes(o.deviceMemory, device),
    hostAdapterBytes: bytes('hostAdapterMemory'),
    pinnedAdapterBytes: bytes('pinnedAdapterMemory'),
    adapterDiskBytes: bytes('adapterCacheDisk'),
    maxContext: o.maxContext === undefined ? undefined : checkInteger('limits.maxContext', o.maxContext, 1, INT32_MAX),
    maxBatchTokens: checkInteger('limits.maxBatchTokens', o.maxBatchTokens ?? MAX_BATCH_TOKENS_DEFAULT, 1, 65_536),
    maxStepMs: checkInteger('limits.maxStepMs', o.maxStepMs ?? MAX_STEP_MS_DEFAULT, 0, 600_000),
    maxQueued,
    maxQueuedPerTenant: checkCount('limits.maxQueuedPerTenant', o.maxQueuedPerTenant ?? Math.ceil(maxQueued / 2)),
    batchLoraBytes: o.maxBatchLoraBytes === undefined ? 0 : checkLoraBytes(o.maxBatchLoraBytes),
  };
}

const checkCount = (what: string, value: unknown) => checkInteger(what, value, 1, 1_000_000);

function checkLoraBytes(value: unknown): number {
  const what = 'limits.maxBatchLoraBytes';
  const bytes = parseByteSize(what, value);
  if (bytes >= 1) return bytes;
  throw new OpenLoraError('ERR_INVALID_OPTION', `${what}: got ${showBytes(bytes)}, wanted at least a byte`, {
    option: what,
  });
}

function checkPoolBytes(value: unknown, device: string): number {
  const what = 'limits.deviceMemory';
  const bytes = parseByteSize(what, value);
  // What a GPU has is known to its driver alone: more is ERR_OUT_OF_MEMORY.
  const most = isCuda(device) ? Number.MAX_SAFE_INTEGER : totalmem();
  if (bytes >= POOL_BYTES_MIN && bytes <= most) return bytes;
  const wanted = `${showBytes(POOL_BYTES_MIN)} to ${showBytes(most)}, what this machine has`;
  throw new OpenLoraError('ERR_INVALID_OPTION', `${what}: got ${showBytes(bytes)}, wanted ${wanted}`, { option: what });
}

function checkCallback(value: unknown): CheckedLoadOptions['onProgress'] {
  if (value !== undefined) checkFunction('onProgress', value);
  return value as CheckedLoadOptions['onProgress'];
}

function checkResolver(value: unknown): AdapterResolver | undefined {
  if (value !== undefined) checkFunction('adapterResolver', value);
  return value as AdapterResolver | undefined;
}

function checkResolverLimits(given: unknown): CheckedResolverLimits {
  const o = checkObject('resolverLimits', given ?? {}) as Partial<Record<keyof ResolverLimits, unknown>>;
  checkKeys('resolverLimits', o, RESOLVER_KEYS);
  return {
    timeoutMs: checkInteger('resolverLimits.timeoutMs', o.timeoutMs ?? 60_000, 1, INT32_MAX),
    maxConcurrent: checkInteger('resolverLimits.maxConcurrent', o.maxConcurrent ?? 16, 1, 10_000),
    missTtlMs: checkInteger('resolverLimits.missTtlMs', o.missTtlMs ?? 10_000, 0, INT32_MAX),
    maxMisses: checkInteger('resolverLimits.maxMisses', o.maxMisses ?? 10_000, 0, 1_000_000),
    maxResolved: checkInteger('resolverLimits.maxResolved', o.maxResolved ?? 10_000, 1, 10_000_000),
  };
}

function checkLogger(value: unknown): Logger {
  return value === undefined ? {} : checkObject('logger', value);
}

/**
 * `poolBytes` 0: the native side takes what a GPU has free. `maxContext` 0: what the checkpoint is made for, or what the pool holds. `diskFree`: bytes that the disk of packed adapters
 * has left.
 */
export function resolveLimits(
  limits: CheckedLoadOptions['limits'],
  model: ModelSpec,
  kvDtype: HeldDType,
  diskFree: number,
  device: string,
): NativeLimits {
  const { maxContext = 0 } = limits;
  if (maxContext > model.context) {
    const message = `limits.maxContext: got ${maxContext}, wanted at most ${model.context}, what the checkpoint is made for`;
    throw new OpenLoraError('ERR_INVALID_OPTION', message, { option: 'limits.maxContext' });
  }
  const ofDevice = isCuda(device) ? 0 : poolBytesDefault(model, maxContext || model.context, kvDtype);
  const poolBytes = limits.poolBytes ?? ofDevice;
  return {
    ...limits,
    poolBytes,
    maxContext,
    adapterDiskBytes: limits.adapterDiskBytes ?? Math.min(ADAPTER_DISK_DEFAULT, Math.floor(diskFree / 2)),
    hostAdapterBytes: limits.hostAdapterBytes ?? Math.min(HOST_ADAPTERS_DEFAULT, Math.floor(availableMemory() / 4)),
    pinnedAdapterBytes: limits.pinnedAdapterBytes ?? Math.floor(poolBytes / 2),
  };
}

/** KV of 16 full sequences and 256 MiB for adapters; no more than half of the memory that is available. */
function poolBytesDefault(model: ModelSpec, maxContext: number, kvDtype: HeldDType): number {
  // int8: a byte each, and a scale of two for each head.
  const rowBytes = kvDtype === 'int8' ? model.headDim + 2 : model.headDim * (kvDtype === 'f32' ? 4 : 2);
  const tokenBytes = 2 * model.layers * model.kvHeads * rowBytes;
  return Math.max(POOL_BYTES_MIN, Math.floor(Math.min(16 * maxContext * tokenBytes + 2 ** 28, availableMemory() / 2)));
}

function availableMemory(): number {
  return process.availableMemory() || freemem();
}

export interface CheckedRegisterOptions {
  /** What is waited for before the adapter is there for requests. */
  hold: NativeHold | undefined;
  tenant: string | undefined;
  /** null: no adapter of that name. */
  expectedGeneration: string | null | undefined;
  signal: AbortSignal | undefined;
}

export function checkRegisterOptions(given: unknown): CheckedRegisterOptions {
  const o = checkObject('registerAdapter', given ?? {}) as Partial<Record<keyof RegisterOptions, unknown>>;
  checkKeys('registerAdapter', o, REGISTER_KEYS);
  const isPinned = o.pin !== undefined && checkBoolean('pin', o.pin);
  const preload = checkOneOf('preload', o.preload ?? 'none', ['none', 'host', 'device']);
  return {
    hold: isPinned ? 'pin' : preload === 'none' ? undefined : preload,
    tenant: o.tenant === undefined ? undefined : checkName('tenant', o.tenant),
    expectedGeneration: o.expectedGeneration === undefined ? undefined : checkGeneration(o.expectedGeneration),
    signal: o.signal === undefined ? undefined : checkSignal('signal', o.signal),
  };
}

function checkGeneration(value: unknown): string | null {
  if (value === null) return null;
  if (typeof value !== 'string' || !/^[0-9a-f]{64}$/.test(value)) {
    invalid('expectedGeneration', value, '64 hexadecimal digits, in small letters, or null');
  }
  return value;
}
