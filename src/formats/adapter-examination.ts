// Every reason why an adapter doesn't fit a base, not only the first. The checks are those of adapter-folder.ts; what
// they refuse is noted, what it was about is left out, and they go on.

import { resolve } from 'node:path';
import { OpenLoraError } from '../errors.js';
import { checkBaseName, describeTensors, readParts, readTensors, type AdapterOptions } from './adapter-folder.js';
import { AdapterNames } from './adapter-names.js';
import { guarded, matchTensors, type FoundTensor, type Refuse } from './adapter-tensors.js';
import { checkAddedTokens } from './adapter-tokenizer.js';
import type { JsonObject } from './json.js';
import { Pacer } from './pacer.js';
import { readLoraConfig, type LoraConfig } from './peft.js';
import { resolveTargets, type TargetSite } from './peft-targets.js';
import type { AdapterDescription, BaseFolder, FormatWarning } from './types.js';

/** Sizes of the base that an adapter was made for, as its tensors tell them; those that none tells are left out. */
export interface AdapterExtents {
  /** The adapter may leave the last ones out: at least so many. */
  layers?: number;
  hidden?: number;
  intermediate?: number;
  /** Heads times their size. */
  queryWidth?: number;
  kvWidth?: number;
  vocabSize?: number;
}

export interface AdapterExamination {
  description: AdapterDescription & { baseNameOrPath?: string };
  refusals: OpenLoraError[];
  extents: AdapterExtents;
}

/** Throws what {@link readParts} and the safetensors reader throw: an adapter that can't be read has no other reasons. */
export async function examineAdapterFolder(
  path: string,
  base: BaseFolder,
  o: AdapterOptions = {},
): Promise<AdapterExamination> {
  const folder = resolve(path);
  const pacer = new Pacer(o.signal);
  const { parts, present } = await readParts(folder, pacer);
  const { found: tensors } = await readTensors(parts, pacer);
  const refusals: OpenLoraError[] = [];
  const refuse: Refuse = (error) => refusals.push(error);
  const config = readConfig(parts.config, refuse);
  const warnings: FormatWarning[] = [];
  const name = parts.config.base_model_name_or_path;
  const named = typeof name === 'string' && name !== '' ? { baseNameOrPath: name } : {};
  await noted(refuse, () => checkBaseName(named, base, o.strictBase ?? false, warnings));
  const targets =
    (config && (await noted(refuse, () => resolveTargets(config, base, warnings, pacer)))) ??
    sitesOfTensors(tensors, base);
  await matchTensors(tensors, targets, base, pacer, refuse);
  await noted(refuse, () => checkAddedTokens(folder, present, base.path, o.vocabulary ?? base.spec.vocab, pacer));
  // What the description would refuse, the match has refused.
  const description = await describeTensors(tensors, path, pacer, ignore);
  const { chat } = parts;
  return {
    description: {
      ...description,
      warnings,
      ...named,
      ...(chat === undefined ? {} : { chat }),
    },
    refusals,
    extents: extentsOf(tensors),
  };
}

async function noted<T>(refuse: Refuse, check: () => T | Promise<T>): Promise<T | undefined> {
  try {
    return await check();
  } catch (error) {
    if (!OpenLoraError.is(error) || error.code === 'ERR_ABORTED') throw error;
    refuse(error);
    return undefined;
  }
}

/** Keys without which nothing more can be said. */
const INDISPENSABLE = ['peft_type', 'target_modules'];

/** The config without the keys that were refused; undefined where too little is left. */
function readConfig(object: JsonObject, refuse: Refuse): LoraConfig | undefined {
  const left = { ...object };
  for (;;) {
    let refused: OpenLoraError | undefined;
    const config = guarded(
      (error) => (refused = error),
      () => readLoraConfig(left),
    );
    if (config) return config;
    refuse(refused!);
    const { key } = refused!.details;
    if (typeof key !== 'string' || !Object.hasOwn(left, key) || INDISPENSABLE.includes(key)) return undefined;
    delete left[key];
  }
}

/** Where the config doesn't say what is targeted: what there are tensors of, with the ranks that these have. */
function sitesOfTensors(tensors: FoundTensor[], base: BaseFolder): TargetSite[] {
  const names = new AdapterNames();
  const ranks = new Map<string, number>();
  for (const { name, shape } of tensors) {
    const parsed = guarded(ignore, () => names.read(name));
    if (parsed?.kind.endsWith('A')) ranks.set(parsed.module, shape[0] ?? 0);
  }
  return base.sites.flatMap((site) => {
    const rank = ranks.get(site.name);
    return rank === undefined ? [] : [{ site, rank, scale: 1 }];
  });
}

type Extent = Exclude<keyof AdapterExtents, 'layers'>;

/** What the free side of A and of B is of. */
const SIDES: Readonly<Record<string, readonly [A: Extent | undefined, B: Extent | undefined]>> = {
  q_proj: ['hidden', 'queryWidth'],
  k_proj: ['hidden', 'kvWidth'],
  v_proj: ['hidden', 'kvWidth'],
  o_proj: ['queryWidth', 'hidden'],
  gate_proj: ['hidden', 'intermediate'],
  up_proj: ['hidden', 'intermediate'],
  down_proj: ['intermediate', 'hidden'],
  qkv_proj: ['hidden', undefined],
  gate_up_proj: ['hidden', undefined],
  lm_head: ['hidden', 'vocabSize'],
  embed_tokens: ['vocabSize', 'hidden'],
};

/** What most tensors say: one that is damaged tells nothing of the base. */
function extentsOf(tensors: FoundTensor[]): AdapterExtents {
  const names = new AdapterNames();
  const votes = new Map<Extent, Map<number, number>>();
  let layers = 0;
  for (const { name, shape } of tensors) {
    const parsed = guarded(ignore, () => names.read(name));
    if (!parsed || parsed.kind.startsWith('base') || shape.length !== 2) continue;
    const { module, kind } = parsed;
    layers = Math.max(layers, Number(/(?:^|\.)layers\.(\d+)\./.exec(module)?.[1] ?? -1) + 1);
    const isA = kind.endsWith('A');
    const extent = SIDES[module.slice(module.lastIndexOf('.') + 1)]?.[isA ? 0 : 1];
    if (extent === undefined) continue;
    const size = shape[isA ? 1 : 0]!;
    const sizes = votes.get(extent) ?? new Map<number, number>();
    votes.set(extent, sizes.set(size, (sizes.get(size) ?? 0) + 1));
  }
  const extents: AdapterExtents = layers > 0 ? { layers } : {};
  for (const [extent, sizes] of votes) {
    [extents[extent]] = [...sizes].reduce((most, next) => (next[1] > most[1] ? next : most));
  }
  return extents;
}

const ignore: Refuse = () => undefined;
