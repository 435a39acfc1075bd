// What `openlora inspect` says of a base.

import { stat } from 'node:fs/promises';
import { basename } from 'node:path';
import { OpenLoraError } from '../errors.js';
import { readBaseFolder } from '../formats/index.js';
import { openTokenizer } from '../formats/tokenizer.js';

export interface BaseReport {
  kind: 'base';
  path: string;
  family: string;
  parameters: number;
  layers: number;
  hidden: number;
  heads: number;
  kvHeads: number;
  headDim: number;
  intermediate: number;
  vocabSize: number;
  contextLength: number;
  isTied: boolean;
  dtype: string;
  /** Of the tensors. */
  bytes: number;
  eosTokens: number[];
  files: { name: string; bytes: number }[];
  tokenizer: { tokens?: number; hasChatTemplate: boolean; error?: { code: string; message: string } };
  /** Modules that an adapter can act on; `*` stands for the layer. */
  sites: { name: string; in: number; out: number; count: number }[];
}

export async function describeBase(path: string, signal: AbortSignal): Promise<BaseReport> {
  const base = await readBaseFolder(path, { signal });
  const { spec } = base;
  const sites = new Map<string, BaseReport['sites'][number]>();
  for (const site of base.sites) {
    const name = site.name.replace(/\.\d+\./, '.*.');
    const known = sites.get(name);
    if (known) known.count++;
    else sites.set(name, { name, in: site.in, out: site.out, count: 1 });
  }
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
    files: await Promise.all(
      base.files.map(async (file) => ({ name: basename(file), bytes: (await stat(file)).size })),
    ),
    tokenizer: await describeTokenizer(path, spec.vocab, signal),
    sites: [...sites.values()],
  };
}

/** A base without a usable tokenizer is still worth a description. */
async function describeTokenizer(
  folder: string,
  vocabSize: number,
  signal: AbortSignal,
): Promise<BaseReport['tokenizer']> {
  try {
    const tokenizer = await openTokenizer({ folder, vocabSize, signal });
    try {
      const { tokenOffsets } = tokenizer;
      let tokens = tokenizer.addedTokens.filter(({ id }) => tokenOffsets[id] === tokenOffsets[id + 1]).length;
      for (let id = 0; id + 1 < tokenOffsets.length; id++) if (tokenOffsets[id] !== tokenOffsets[id + 1]) tokens++;
      return { tokens, hasChatTemplate: tokenizer.hasChatTemplate };
    } finally {
      await tokenizer.dispose();
    }
  } catch (error) {
    if (!OpenLoraError.is(error) || signal.aborted) throw error;
    return { hasChatTemplate: false, error: { code: error.code, message: error.message } };
  }
}
