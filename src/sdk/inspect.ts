// What a folder holds, without loading it: configs, tensor headers and the tokenizer are read as `loadBase` reads them.

import { stat } from 'node:fs/promises';
import { basename } from 'node:path';
import { OpenLoraError } from '../errors.js';
import { describeAdapterFolder, readAdapterFolder, readBaseFolder } from '../formats/index.js';
import { vocabularyOf } from '../formats/token-bytes.js';
import { openTokenizer } from '../formats/tokenizer.js';
import { toOpenLoraError } from './errors.js';

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
  /** Of the weights as they were saved. */
  dtype: string;
  /** Of the weights as they were saved. */
  bytes: number;
  eosTokens: number[];
  files: { name: string; bytes: number }[];
  /** `error`: why `loadBase` would refuse it. */
  tokenizer: { tokens?: number; hasChatTemplate: boolean; error?: InspectedError };
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
  /** Against the base that was given; `error` says why it would be refused. */
  fit?: { fits: true; scales: number[] } | { fits: false; error: InspectedError };
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
      eosTokens: base.eosTokens,
      files: await Promise.all(base.files.map(sizeOf)),
      tokenizer: await inspectTokenizer(base.path, spec.vocab, options),
      sites: base.sites.map(({ name, in: width, out }) => ({ name, in: width, out })),
    };
  } catch (error) {
    throw toOpenLoraError(error, options.signal);
  }
}

/** Describes an adapter's folder; with `base`, whether `registerAdapter` on that base would take it. */
export async function inspectAdapter(
  path: string,
  options: { base?: string; signal?: AbortSignal } = {},
): Promise<InspectedAdapter> {
  const withSignal = options.signal === undefined ? {} : { signal: options.signal };
  try {
    const { chatTemplate, baseNameOrPath, ...described } = await describeAdapterFolder(path, withSignal);
    const inspected: InspectedAdapter = {
      kind: 'adapter',
      ...described,
      ...(baseNameOrPath === undefined ? {} : { baseNameOrPath }),
      hasChatTemplate: chatTemplate !== undefined,
    };
    if (options.base === undefined) return inspected;
    const base = await readBaseFolder(options.base, withSignal);
    const vocabulary = await inspectVocabulary(base.path, base.spec.vocab, withSignal);
    try {
      const { spec, info } = await readAdapterFolder(path, base, { ...withSignal, vocabulary });
      const scales = [...new Set(spec.sites.map(({ scale }) => scale))].sort((a, b) => a - b);
      return { ...inspected, warnings: info.warnings, fit: { fits: true, scales } };
    } catch (error) {
      if (!OpenLoraError.is(error) || options.signal?.aborted) throw error;
      return { ...inspected, fit: { fits: false, error: { code: error.code, message: error.message } } };
    }
  } catch (error) {
    throw toOpenLoraError(error, options.signal);
  }
}

/** As `loadBase` counts it; without a usable tokenizer, the rows of the embedding. */
async function inspectVocabulary(folder: string, rows: number, options: { signal?: AbortSignal }): Promise<number> {
  try {
    const tokenizer = await openTokenizer({ folder, vocabSize: rows, ...options });
    await tokenizer.dispose();
    return vocabularyOf(tokenizer);
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
