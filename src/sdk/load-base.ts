// From a folder to a base: read, check, tokenizer, weights; what was begun is freed when it fails.

import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { BaseFolder } from '../formats/types.js';
import type { OpenTokenizerOptions, Tokenizer } from '../formats/tokenizer-types.js';
import type { DType, NativeAddon, OpenOptions } from '../native/binding.js';
import { vocabularyOf } from '../formats/token-bytes.js';
import { BaseModel, type CheckAdapter, type ReadAdapterFolder } from './base-model.js';
import { EngineHost, type OpenedEvent } from './engine-host.js';
import { callUser, throwIfAborted, toOpenLoraError } from './errors.js';
import { checkLoadOptions, resolveLimits, type CheckedLoadOptions } from './load-options.js';
import type { Base, BaseInfo, LoadBaseOptions, LoadProgress } from './types.js';

/** What the SDK stands on; tests put others in their place. */
export interface SdkParts {
  /** Throws when there is no addon for this machine. */
  loadNative(): { binding: NativeAddon; path: string; rejected: readonly { path: string; reason: string }[] };
  readBaseFolder(path: string, options: { signal?: AbortSignal }): Promise<BaseFolder>;
  readAdapterFolder: ReadAdapterFolder;
  checkAdapter: CheckAdapter;
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
  const native = parts.loadNative();
  callUser(() => logger.debug?.('addon loaded', { path: native.path, rejected: native.rejected }));
  const folder = await parts.readBaseFolder(options.path, withSignal);
  throwIfAborted('loadBase', signal);
  const dtype = options.dtype === 'auto' ? folder.sourceDtype : options.dtype;
  const kvDtype = options.kvDtype === 'auto' ? dtype : options.kvDtype;
  const limits = resolveLimits(options.limits, folder.spec, kvDtype);
  const tokenizerBytes = await fileBytes(join(folder.path, 'tokenizer.json'));
  report('tokenizer', 0, tokenizerBytes);
  const tokenizer = await parts.openTokenizer({ folder: folder.path, vocabSize: folder.spec.vocab, ...withSignal });
  try {
    throwIfAborted('loadBase', signal);
    report('tokenizer', tokenizerBytes, tokenizerBytes);
    const openOptions: OpenOptions = {
      model: folder.spec,
      files: folder.files,
      tensors: folder.tensors,
      tokenBytes: tokenizer.tokenBytes,
      tokenOffsets: tokenizer.tokenOffsets,
      dtype,
      kvDtype,
      adapterDtype: dtype,
      simd: options.simd,
      threads: options.threads,
      limits,
    };
    const onProgress = ({ phase, bytesDone, bytesTotal }: Parameters<Parameters<typeof EngineHost.open>[2]>[0]) =>
      report(phase, bytesDone, bytesTotal);
    const { host, opened } = await EngineHost.open(native.binding, openOptions, onProgress, signal);
    callUser(() => logger.info?.('base loaded', { ...opened, path: folder.path }));
    for (const { code, message } of folder.warnings) callUser(() => logger.warn?.(message, { code }));
    const info = describeBase(folder, dtype, opened);
    const rules = {
      vocabSize: info.vocabSize,
      contextLength: info.contextLength,
      eosTokens: folder.eosTokens,
      generation: folder.generation,
    };
    const { strictBase } = options;
    const { maxQueued } = limits;
    const { readAdapterFolder, checkAdapter } = parts;
    // prettier-ignore
    const base = new BaseModel({
      host, tokenizer, folder, info, rules, adapterDtype: dtype, vocabulary: vocabularyOf(tokenizer), maxQueued, strictBase, logger,
      readAdapterFolder, checkAdapter,
    });
    report('ready', opened.weightBytes, opened.weightBytes);
    return base;
  } catch (error) {
    await tokenizer.dispose();
    throw error;
  }
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

function describeBase(folder: BaseFolder, dtype: DType, opened: OpenedEvent): BaseInfo {
  return Object.freeze({
    family: folder.family,
    parameters: folder.parameters,
    dtype,
    device: 'cpu',
    contextLength: opened.maxContext,
    vocabSize: folder.spec.vocab,
    sites: folder.sites.map((site) => ({ name: site.name, in: site.in, out: site.out })),
    digest: opened.digest,
    warnings: folder.warnings.map((warning) => ({ ...warning })),
  });
}
