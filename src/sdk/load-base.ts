// From a folder to a base: read, check, tokenizer, weights; what was begun is freed when it fails.

import { stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { OpenLoraError } from '../errors.js';
import type { BaseDescription, FolderReader } from '../formats/index.js';
import type { OpenTokenizerOptions, Tokenizer } from '../formats/tokenizer-types.js';
import type { HeldDType, NativeAddon, NativeLimits, OpenOptions, WeightFormat } from '../native/binding.js';
import type { NativeVariant } from '../native/load.js';
import { BaseModel } from './base-model.js';
import { EngineHost, type OpenedEvent } from './engine-host.js';
import { callUser, throwIfAborted, toOpenLoraError } from './errors.js';
import { checkComputes, checkLoadOptions, isCuda, resolveLimits, type CheckedLoadOptions } from './load-options.js';
import { openPacks, type PackFolder } from './pack-folder.js';
import type { Base, BaseInfo, LoadBaseOptions, LoadProgress } from './types.js';

interface FoundAddon {
  binding: NativeAddon;
  variant: NativeVariant;
  path: string;
  rejected: readonly { path: string; reason: string }[];
}

/** What the SDK stands on; tests put others in their place. */
export interface SdkParts {
  /** Throws when there is no addon for this machine. */
  loadNative(): FoundAddon | Promise<FoundAddon>;
  openFolderReader(path: string, options: { signal?: AbortSignal }): Promise<FolderReader>;
  openTokenizer(options: OpenTokenizerOptions): Promise<Tokenizer>;
}

type Report = (phase: LoadProgress['phase'], bytesDone: number, bytesTotal: number) => void;

export function createLoadBase(parts: SdkParts): (options: LoadBaseOptions) => Promise<Base> {
  return async (given) => {
    let signal: AbortSignal | undefined;
    try {
      const options = checkLoadOptions(given);
      signal = options.signal;
      throwIfAborted('loadBase', signal);
      return await load(parts, options);
    } catch (error) {
      throw toOpenLoraError(error, signal);
    }
  };
}

async function load(parts: SdkParts, options: CheckedLoadOptions): Promise<Base> {
  const { signal, logger } = options;
  const withSignal = signal === undefined ? {} : { signal };
  const report = makeReport(options);
  // Loading a library, starting a thread and opening an engine take the better part of a millisecond or more: a turn for each.
  await nextTurn();
  const native = await parts.loadNative();
  callUser(() => logger.debug?.('addon loaded', { path: native.path, rejected: native.rejected }));
  checkVariant(options.device, native);
  await nextTurn();
  const reader = await parts.openFolderReader(options.path, withSignal);
  let tokenizer: Tokenizer | undefined;
  let packs: PackFolder | undefined;
  try {
    throwIfAborted('loadBase', signal);
    const folder = reader.base;
    packs = await openPacks(options);
    const settings = settle(options, folder, packs.diskFree);
    const tokenizerBytes = await fileBytes(join(folder.path, 'tokenizer.json'));
    report('tokenizer', 0, tokenizerBytes);
    await nextTurn();
    tokenizer = await parts.openTokenizer({ folder: folder.path, vocabSize: folder.spec.vocab, ...withSignal });
    report('tokenizer', tokenizerBytes, tokenizerBytes);
    await nextTurn();
    throwIfAborted('loadBase', signal);
    return await openBase(native, options, settings, { reader, tokenizer, packs }, report);
  } catch (error) {
    await Promise.all([reader.dispose(), tokenizer?.dispose(), packs?.remove()]);
    throw error;
  }
}

interface Settings {
  dtype: WeightFormat;
  kvDtype: HeldDType;
  adapterDtype: HeldDType;
  limits: NativeLimits;
}

/** An addon for CPUs has no GPU: those for GPUs are tried before it. */
function checkVariant(device: string, { variant, path, rejected }: FoundAddon): void {
  if (!isCuda(device) || variant !== 'cpu') return;
  const others = rejected.map((other) => `\n  ${other.path}: ${other.reason}`).join('');
  const message = `device: '${device}' can't be used: ${path} computes on CPUs, and those for GPUs can't run here${others}`;
  throw new OpenLoraError('ERR_CUDA_DRIVER', message, { device });
}

/** What the options leave to the base. */
function settle(options: CheckedLoadOptions, folder: BaseDescription, diskFree: number): Settings {
  // A GPU multiplies 16 bits.
  const ofBase = isCuda(options.device) && folder.sourceDtype === 'f32' ? 'bf16' : folder.sourceDtype;
  const dtype = options.dtype === 'auto' ? ofBase : options.dtype;
  checkComputes(options.compute, dtype);
  // Beside quantised weights go the checkpoint's 16 bits, bf16 for one in f32: whoever asks for int8 wants it
  // small.
  const besideQuantised = folder.sourceDtype === 'f32' ? 'bf16' : folder.sourceDtype;
  const unquantised = dtype === 'int8' || dtype === 'int4' ? besideQuantised : dtype;
  const adapterDtype = options.adapterDtype === 'auto' ? unquantised : options.adapterDtype;
  const kvDtype = options.kvDtype === 'auto' ? unquantised : options.kvDtype;
  return {
    dtype,
    kvDtype,
    adapterDtype,
    limits: resolveLimits(options.limits, folder.spec, kvDtype, diskFree, options.device),
  };
}

/** Gives the engine what was read; on an error the reader, the tokenizer and the folder are the caller's to end. */
async function openBase(
  { binding, path }: FoundAddon,
  options: CheckedLoadOptions,
  { dtype, kvDtype, adapterDtype, limits }: Settings,
  { reader, tokenizer, packs }: { reader: FolderReader; tokenizer: Tokenizer; packs: PackFolder },
  report: Report,
): Promise<Base> {
  const { signal, logger, strictBase } = options;
  const { base: folder } = reader;
  const openOptions: OpenOptions = {
    model: folder.spec,
    files: folder.files,
    tensors: folder.tensors,
    cacheDir: options.cacheDir,
    adapterDir: packs.path,
    tokenBytes: tokenizer.tokenBytes,
    tokenOffsets: tokenizer.tokenOffsets,
    dtype: options.compute === 'bf16' ? 'bf16-dot' : dtype,
    kvDtype,
    adapterDtype,
    device: options.device,
    cudaImages: join(dirname(path), 'cuda_images'),
    simd: options.simd,
    threads: options.threads,
    prefixCache: options.prefixCache,
    limits,
  };
  const onProgress = ({ phase, bytesDone, bytesTotal }: Parameters<Parameters<typeof EngineHost.open>[2]>[0]) =>
    report(phase, bytesDone, bytesTotal);
  const { host, opened } = await EngineHost.open(binding, openOptions, onProgress, signal);
  await nextTurn();
  callUser(() => logger.info?.('base loaded', { ...opened, path: folder.path }));
  const info = describeBase(folder, options.device, dtype, kvDtype, opened);
  host.onWarning = ({ code, message }) => callUser(() => logger.warn?.(message, { code }));
  for (const warning of [...info.warnings, ...packs.warnings]) host.onWarning(warning);
  const rules = {
    vocabSize: info.vocabSize,
    contextLength: info.contextLength,
    eosTokens: folder.eosTokens,
    generation: folder.generation,
  };
  const { adapterResolver: resolver, resolverLimits } = options;
  // prettier-ignore
  const base = new BaseModel({ host, tokenizer, reader, packs, info, rules, adapterDtype, limits, strictBase, logger, resolver, resolverLimits });
  report('ready', opened.weightBytes, opened.weightBytes);
  return base;
}

function makeReport({ onProgress, signal }: CheckedLoadOptions): Report {
  return (phase, bytesDone, bytesTotal) => {
    if (onProgress && !signal?.aborted) callUser(() => onProgress({ phase, bytesDone, bytesTotal }));
  };
}

/** 0 for what isn't there: its reader says so. */
async function fileBytes(path: string): Promise<number> {
  return stat(path).then(
    ({ size }) => size,
    () => 0,
  );
}

function describeBase(
  folder: BaseDescription,
  device: string,
  dtype: WeightFormat,
  kvDtype: HeldDType,
  opened: OpenedEvent,
): BaseInfo {
  return Object.freeze({
    family: folder.family,
    parameters: folder.parameters,
    dtype,
    kvDtype,
    device,
    contextLength: opened.maxContext,
    vocabSize: folder.spec.vocab,
    sites: folder.sites.map((site) => ({ name: site.name, in: site.in, out: site.out })),
    digest: opened.digest,
    weightsFrom: opened.weightsFrom,
    warnings: [...folder.warnings.map((warning) => ({ ...warning })), ...cacheWarnings(opened)],
  });
}

function cacheWarnings({ cacheWarning }: OpenedEvent): BaseInfo['warnings'] {
  if (cacheWarning === '') return [];
  return [{ code: 'WARN_BASE_CACHE', message: `the cache of packed weights can't be used: ${cacheWarning}` }];
}
