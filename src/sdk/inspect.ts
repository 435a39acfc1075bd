// What a folder holds, without loading it: configs, tensor headers and the tokenizer are read as `loadBase` reads them.

import { stat } from 'node:fs/promises';
import { basename } from 'node:path';
import { OpenLoraError } from '../errors.js';
import {
  describeAdapterFolder,
  examineAdapterFolder,
  readAdapterFolder,
  readBaseFolder,
  type AdapterExtents,
} from '../formats/index.js';
import type { BaseFolder } from '../formats/types.js';
import { openTokenizer } from '../formats/tokenizer.js';
import { toOpenLoraError } from './errors.js';
import { basesLike } from './known-bases.js';
import { groupRefusals, type Misfit } from './misfits.js';

export type { AdapterExtents, Misfit };

export interface InspectedError {
  code: string;
  message: string;
}

/** A base as its files describe it. */
export interface InspectedBase {
  kind: 'base';
  /** Absolute. */
  path: string;
  /** `llama`, `qwen2`, … */
  family: string;
  /** Elements of all weights; a tied head counts once. */
  parameters: number;
  layers: number;
  hidden: number;
  heads: number;
  kvHeads: number;
  headDim: number;
  intermediate: number;
  vocabSize: number;
  /** Positions that the checkpoint is made for. */
  contextLength: number;
  isTied: boolean;
  /** What `loadBase` keeps the weights in unless told otherwise. */
  dtype: string;
  /** Of the weights as they were saved. */
  bytes: number;
  /** Of the KV cache, for each token of a sequence, with keys and values of 2 bytes (f32 takes twice as much). */
  kvBytesPerToken: number;
  eosTokens: number[];
  files: { name: string; bytes: number }[];
  /** `error`: why `loadBase` would refuse it. */
  tokenizer: { tokens?: number; hasChatTemplate: boolean; error?: InspectedError };
  /** As in `BaseInfo`. */
  warnings: InspectedError[];
  /** Every module that an adapter can act on. */
  sites: { name: string; in: number; out: number }[];
}

/** An adapter as its files describe it, and whether it fits a base. */
export interface InspectedAdapter {
  kind: 'adapter';
  rank: { min: number; max: number };
  /** Modules that it acts on. */
  sites: string[];
  /** Elements of all A and B matrices. */
  parameters: number;
  /** Of the A and B matrices as they were saved. */
  bytes: number;
  /** `base_model_name_or_path` of its config. */
  baseNameOrPath?: string;
  hasChatTemplate: boolean;
  warnings: InspectedError[];
  /** Against the base that was given. */
  fit?: AdapterFit | AdapterMisfit;
}

export interface AdapterFit {
  fits: true;
  /** α/r or α/√r of its modules, ascending, each once. */
  scales: number[];
}

export interface AdapterMisfit {
  fits: false;
  /** What `registerAdapter` would reject with. */
  error: InspectedError;
  /** Every reason that was found; those that are true of many tensors are one. */
  reasons: Misfit[];
  /** Sizes of the base that it was made for, and names of well-known bases that have them. */
  madeFor: AdapterExtents & { like: string[] };
  /** The base that was given; `nameOrPath` as its config says. */
  base: Required<AdapterExtents> & { path: string; family: string; parameters: number; nameOrPath?: string };
}

/** Describes a base's folder. Rejects with what `loadBase` rejects with for its config and weights; a tokenizer's error is part of the answer. */
export async function inspectBase(path: string, options: { signal?: AbortSignal } = {}): Promise<InspectedBase> {
  try {
    const base = await readBaseFolder(path, options);
    const { spec } = base;
    const sizeOf = async (file: string) => ({ name: basename(file), bytes: (await stat(file)).size });
    return {
      kind: 'base',
      path: base.path,
      family: base.family,
      parameters: base.parameters,
      layers: spec.layers,
      hidden: spec.hidden,
      heads: spec.heads,
      kvHeads: spec.kvHeads,
      headDim: spec.headDim,
      intermediate: spec.intermediate,
      vocabSize: spec.vocab,
      contextLength: spec.context,
      isTied: spec.isTied,
      dtype: base.sourceDtype,
      bytes: base.tensors.reduce((sum, { bytes }) => sum + bytes, 0),
      kvBytesPerToken: 2 * 2 * spec.layers * spec.kvHeads * spec.headDim,
      eosTokens: base.eosTokens,
      files: await Promise.all(base.files.map(sizeOf)),
      tokenizer: await inspectTokenizer(base.path, spec.vocab, options),
      warnings: base.warnings,
      sites: base.sites.map(({ name, in: width, out }) => ({ name, in: width, out })),
    };
  } catch (error) {
    throw toOpenLoraError(error, options.signal);
  }
}

/**
 * Describes an adapter's folder; with `base`, whether `registerAdapter` on that base would take it, and if not, every
 * reason that can be found. Rejects where the files can't be read, and without `base` also where no base could fit.
 */
export async function inspectAdapter(
  path: string,
  options: { base?: string; signal?: AbortSignal } = {},
): Promise<InspectedAdapter> {
  const withSignal = options.signal === undefined ? {} : { signal: options.signal };
  try {
    if (options.base === undefined) return inspected(await describeAdapterFolder(path, withSignal));
    const base = await readBaseFolder(options.base, withSignal);
    const vocabulary = await inspectVocabulary(base.path, base.spec.vocab, withSignal);
    return await inspectFit(path, base, { ...withSignal, vocabulary });
  } catch (error) {
    throw toOpenLoraError(error, options.signal);
  }
}

type Described = Awaited<ReturnType<typeof describeAdapterFolder>>;

function inspected({ chat, ...described }: Described): InspectedAdapter {
  return { kind: 'adapter', ...described, hasChatTemplate: chat !== undefined };
}

async function inspectFit(
  path: string,
  base: BaseFolder,
  options: { vocabulary: number; signal?: AbortSignal },
): Promise<InspectedAdapter> {
  let refused: OpenLoraError;
  try {
    const { spec, info } = await readAdapterFolder(path, base, options);
    const scales = [...new Set(spec.sites.map(({ scale }) => scale))].sort((a, b) => a - b);
    const described = await describeAdapterFolder(path, options);
    return { ...inspected({ ...described, warnings: info.warnings }), fit: { fits: true, scales } };
  } catch (error) {
    if (!OpenLoraError.is(error) || options.signal?.aborted) throw error;
    refused = error;
  }
  const { description, refusals, extents } = await examineAdapterFolder(path, base, options);
  const { spec } = base;
  return {
    ...inspected(description),
    fit: {
      fits: false,
      error: { code: refused.code, message: refused.message },
      reasons: groupRefusals(refusals),
      madeFor: { ...extents, like: basesLike(extents) },
      base: {
        path: base.path,
        family: base.family,
        parameters: base.parameters,
        ...(base.nameOrPath === undefined ? {} : { nameOrPath: base.nameOrPath }),
        layers: spec.layers,
        hidden: spec.hidden,
        intermediate: spec.intermediate,
        queryWidth: spec.heads * spec.headDim,
        kvWidth: spec.kvHeads * spec.headDim,
        vocabSize: spec.vocab,
      },
    },
  };
}

/** As `loadBase` counts it; without a usable tokenizer, the rows of the embedding. */
async function inspectVocabulary(folder: string, rows: number, options: { signal?: AbortSignal }): Promise<number> {
  try {
    const tokenizer = await openTokenizer({ folder, vocabSize: rows, ...options });
    await tokenizer.dispose();
    return tokenizer.vocabulary;
  } catch (error) {
    if (!OpenLoraError.is(error) || options.signal?.aborted) throw error;
    return rows;
  }
}

/** A base without a usable tokenizer is still worth a description. */
async function inspectTokenizer(
  folder: string,
  vocabSize: number,
  options: { signal?: AbortSignal },
): Promise<InspectedBase['tokenizer']> {
  try {
    const tokenizer = await openTokenizer({ folder, vocabSize, ...options });
    const { tokenOffsets: offsets, addedTokens, hasChatTemplate } = tokenizer;
    await tokenizer.dispose();
    const special = addedTokens.filter(({ id }) => offsets[id] === offsets[id + 1]).length;
    const withText = offsets.subarray(1).reduce((count, end, id) => count + (end > offsets[id]! ? 1 : 0), 0);
    return { tokens: special + withText, hasChatTemplate };
  } catch (error) {
    if (!OpenLoraError.is(error) || options.signal?.aborted) throw error;
    return { hasChatTemplate: false, error: { code: error.code, message: error.message } };
  }
}
