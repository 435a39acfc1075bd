// An adapter folder as PEFT saves it: adapter_config.json and adapter_model.safetensors, perhaps a tokenizer. transformers
// cuts the tensors of a large one into `adapter_model-00001-of-00002.safetensors` and so on, with an index that it calls
// model.safetensors.index.json; other writers name it after the adapter.
//
// | code                       | meaning                                                                            |
// |----------------------------|------------------------------------------------------------------------------------|
// | ERR_ADAPTER_FILES          | no such folder, or adapter_config.json or a tensor file is missing                 |
// | ERR_ADAPTER_INDEX          | the index of several tensor files is malformed, or disagrees with them             |
// | ERR_ADAPTER_BIN            | the weights are a pickle (.bin, .pt), which would run code                         |
// | ERR_ADAPTER_BASE_NAME      | made for another base, with `strictBase`; else the warning WARN_ADAPTER_BASE_NAME   |
// | ERR_ADAPTER_TOKENIZER      | its tokenizer files are malformed                                                  |
// | ERR_ADAPTER_VOCABULARY     | its tokenizer adds tokens that the base doesn't have                               |

import { readdir } from 'node:fs/promises';
import { basename, join, resolve } from 'node:path';
import { OpenLoraError } from '../errors.js';
import { LAYER_SITES } from '../native/binding.js';
import { checkAddedTokens, readAdapterChatTemplates } from './adapter-tokenizer.js';
import { AdapterNames } from './adapter-names.js';
import { guarded, matchTensors, throwRefusal, type FoundTensor, type Refuse } from './adapter-tensors.js';
import type { ChatTemplateSource } from './tokenizer-types.js';
import { isMissing, readJsonObject, type JsonObject } from './json.js';
import { Pacer } from './pacer.js';
import { canonicalConfig, readLoraConfig, type LoraConfig } from './peft.js';
import { resolveTargets } from './peft-targets.js';
import { readSafetensorsHeader, type ReadHeader } from './safetensors.js';
import { IndexCheck, readSafetensorsIndex, type IndexCodes, type SafetensorsIndex } from './safetensors-index.js';
import type { AdapterDescription, AdapterFolder, BaseFolder, FormatWarning } from './types.js';

const CONFIG = 'adapter_config.json';
const TENSORS = 'adapter_model.safetensors';
const SHARD = /^adapter_model-\d+-of-\d+\.safetensors$/;
const INDEXES = ['adapter_model.safetensors.index.json', 'model.safetensors.index.json'];
const INDEX_CODES: IndexCodes = { index: 'ERR_ADAPTER_INDEX', files: 'ERR_ADAPTER_FILES' };
/** Tensor files of one adapter: all of them are open while it is loaded. */
const FILES_MAX = 64;

/** Options of {@link readAdapterFolder}. */
export interface AdapterOptions {
  /** Refuse an adapter that names another base; default false, a warning. */
  strictBase?: boolean;
  /** Tokens of the base's tokenizer, if fewer than the rows of its embedding; default those rows. */
  vocabulary?: number;
  signal?: AbortSignal;
}

/** The parts of an adapter wherever they come from. */
export interface AdapterParts {
  config: JsonObject;
  /** Paths of its safetensors files, in the order of their names. */
  files: string[];
  /** Of several files. */
  index?: SafetensorsIndex;
  chat?: ChatTemplateSource;
}

/**
 * Reads and checks a PEFT adapter folder against a base: its config, the header of its tensors, and what its tokenizer
 * adds. No weights are read. Throws ERR_ADAPTER_*, ERR_SAFETENSORS_*, ERR_ABORTED.
 */
export async function readAdapterFolder(
  path: string,
  base: BaseFolder,
  o: AdapterOptions = {},
): Promise<AdapterFolder> {
  const folder = resolve(path);
  const pacer = new Pacer(o.signal);
  const { parts, present } = await readParts(folder, pacer);
  await checkAddedTokens(folder, present, base.path, o.vocabulary ?? base.spec.vocab, pacer);
  return checkAdapter(parts, base, o, pacer);
}

/** Checks an adapter whose parts are known. Throws as {@link readAdapterFolder} does. */
export async function checkAdapter(
  parts: AdapterParts,
  base: BaseFolder,
  o: AdapterOptions = {},
  pacer: Pacer = new Pacer(o.signal),
): Promise<AdapterFolder> {
  const config = readLoraConfig(parts.config);
  const warnings: FormatWarning[] = [];
  checkBaseName(config, base, o.strictBase ?? false, warnings);
  const targets = await resolveTargets(config, base, warnings, pacer);
  const { found, headerDigests } = await readTensors(parts, pacer);
  const { tensors, baseTensors } = await matchTensors(found, targets, base, pacer);
  const ranks = targets.map(({ rank }) => rank);
  const { chat } = parts;
  return {
    spec: {
      files: parts.files,
      headerDigests,
      tensors,
      sites: targets.map(({ site, rank, scale }) => ({ site: site.site, rank, scale })),
      baseTensors,
      canonicalConfig: canonicalConfig(config, chat),
    },
    info: {
      rank: { min: Math.min(...ranks), max: Math.max(...ranks) },
      sites: targets.map(({ site }) => site.name),
      parameters: tensors.reduce((sum, { rows, cols }) => sum + rows * cols, 0),
      bytes: tensors.reduce((sum, { bytes }) => sum + bytes, 0),
      warnings,
      ...(chat === undefined ? {} : { chat }),
    },
  };
}

/**
 * Describes an adapter folder without a base, from its config and tensor names. Throws what
 * {@link readAdapterFolder} throws for anything that no base could fit.
 */
export async function describeAdapterFolder(
  path: string,
  o: { signal?: AbortSignal } = {},
): Promise<AdapterDescription & { baseNameOrPath?: string }> {
  const pacer = new Pacer(o.signal);
  const { parts } = await readParts(resolve(path), pacer);
  const { baseNameOrPath } = readLoraConfig(parts.config);
  const { found } = await readTensors(parts, pacer);
  const description = await describeTensors(found, path, pacer, throwRefusal);
  return {
    ...description,
    ...(parts.chat === undefined ? {} : { chat: parts.chat }),
    ...(baseNameOrPath === undefined ? {} : { baseNameOrPath }),
  };
}

/** What the tensors of the adapter `path` alone say. What no base could fit is refused. */
export async function describeTensors(
  tensors: Iterable<FoundTensor>,
  path: string,
  pacer: Pacer,
  refuse: Refuse,
): Promise<AdapterDescription> {
  const names = new AdapterNames();
  const ranks = new Map<string, number>();
  const halves = new Set<string>();
  let [parameters, bytes] = [0, 0];
  for (const tensor of tensors) {
    if (pacer.isDue) await pacer.rest();
    const name = guarded(refuse, () => names.read(tensor.name));
    if (!name || name.kind.startsWith('base')) continue;
    const { module, kind } = name;
    if (!halves.delete(module)) halves.add(module);
    if (kind.endsWith('A')) ranks.set(module, tensor.shape[0] ?? 0);
    parameters += tensor.shape.reduce((product, size) => product * size, 1);
    bytes += tensor.bytes;
  }
  for (const module of halves) refuse(new OpenLoraError('ERR_ADAPTER_HALF_PAIR', `${module} has only one of A and B`));
  if (ranks.size === 0) refuse(new OpenLoraError('ERR_ADAPTER_TENSOR_MISSING', `${path} has no LoRA tensors`));
  let [min, max] = ranks.size > 0 ? [Infinity, 0] : [0, 0];
  for (const rank of ranks.values()) [min, max] = [Math.min(min, rank), Math.max(max, rank)];
  return {
    rank: { min, max },
    sites: [...ranks.keys()].sort(bySite),
    parameters,
    bytes,
    warnings: [],
  };
}

/** The files of a folder; `present` are their names. Throws ERR_ADAPTER_FILES, _BIN, _CONFIG, _TOKENIZER. */
export async function readParts(folder: string, pacer: Pacer): Promise<{ parts: AdapterParts; present: string[] }> {
  const present = await readdir(folder).catch((cause: unknown) => {
    const why = isMissing(cause) ? 'is not a folder' : `can't be read: ${(cause as Error).message}`;
    throw new OpenLoraError('ERR_ADAPTER_FILES', `${folder} ${why}`, { path: folder }, cause);
  });
  const config = await readJsonObject(join(folder, CONFIG), 'ERR_ADAPTER_CONFIG');
  if (!config) throw new OpenLoraError('ERR_ADAPTER_FILES', `${folder} has no ${CONFIG}`, { path: folder });
  const tensors = await findTensors(folder, present);
  const chat = await readAdapterChatTemplates(folder, present, pacer);
  pacer.checkAborted();
  return { parts: { config, ...tensors, ...(chat === undefined ? {} : { chat }) }, present };
}

async function findTensors(folder: string, present: string[]): Promise<Pick<AdapterParts, 'files' | 'index'>> {
  // PEFT and transformers look for the single file first.
  if (present.includes(TENSORS)) return { files: [join(folder, TENSORS)] };
  if (present.some((name) => SHARD.test(name))) {
    const name = INDEXES.find((candidate) => present.includes(candidate));
    if (name === undefined) {
      throw new OpenLoraError('ERR_ADAPTER_FILES', `${folder} has parts of its tensors, but not ${INDEXES[0]}`, {
        path: folder,
      });
    }
    const index = await readSafetensorsIndex(folder, name, present, INDEX_CODES);
    if (index.files.length > FILES_MAX) {
      throw new OpenLoraError('ERR_ADAPTER_INDEX', `${name} names ${index.files.length} files, more than ${FILES_MAX}`);
    }
    return { files: index.files.map((file) => join(folder, file)), index };
  }
  const pickle = present.find((name) => /^adapter_model\.(?:bin|pt|pth)$/.test(name));
  if (pickle === undefined)
    throw new OpenLoraError('ERR_ADAPTER_FILES', `${folder} has no ${TENSORS}`, { path: folder });
  const message = `${folder} has its weights in ${pickle}, a pickle that could run code; save them as ${TENSORS}`;
  throw new OpenLoraError('ERR_ADAPTER_BIN', message, { path: folder });
}

/** The tensors of all files of an adapter. */
export async function readTensors(
  { files, index }: AdapterParts,
  pacer: Pacer,
): Promise<{ found: FoundTensor[]; headerDigests: string[] }> {
  const found: FoundTensor[] = [];
  const headerDigests: string[] = [];
  const check = index && new IndexCheck(index, INDEX_CODES);
  for (const [file, path] of files.entries()) {
    const { tensors, digest } = await readHeader(path, pacer);
    headerDigests.push(digest);
    for (const tensor of tensors.values()) {
      if (pacer.isDue) await pacer.rest();
      check?.found(tensor.name, basename(path));
      found.push({ ...tensor, file });
    }
  }
  check?.finish();
  return { found, headerDigests };
}

async function readHeader(path: string, pacer: Pacer): Promise<ReadHeader> {
  try {
    return await readSafetensorsHeader(path, pacer);
  } catch (error) {
    if (OpenLoraError.is(error)) throw error;
    throw new OpenLoraError('ERR_ADAPTER_FILES', `${path} can't be read: ${(error as Error).message}`, { path }, error);
  }
}

/**
 * A hub id and a local copy of it are the same base when their last parts agree: adapters are trained from
 * `org/name`, from `/data/name`, and from a snapshot in the hub's cache.
 */
export function checkBaseName(
  config: Pick<LoraConfig, 'baseNameOrPath'>,
  base: BaseFolder,
  isStrict: boolean,
  warnings: FormatWarning[],
): void {
  const wanted = config.baseNameOrPath;
  if (wanted === undefined) return;
  const names = [base.path, ...(base.nameOrPath === undefined ? [] : [base.nameOrPath])];
  if (names.some((name) => lastPart(name) === lastPart(wanted))) return;
  const message = `made for ${wanted}, the base is ${names.at(-1)}`;
  if (isStrict) throw new OpenLoraError('ERR_ADAPTER_BASE_NAME', message, { wanted, base: names.at(-1) });
  warnings.push({ code: 'WARN_ADAPTER_BASE_NAME', message });
}

function lastPart(name: string): string {
  const cached = /models--(?:[^/\\]*--)?([^/\\]+)[/\\]snapshots[/\\]/.exec(`${name}/`);
  return (cached?.[1] ?? basename(name.replaceAll('\\', '/'))).toLowerCase();
}

/** By layer, then as the sites of a layer are numbered, then modules outside the layers. */
function bySite(a: string, b: string): number {
  const order = (name: string) => {
    const layer = Number(/\.layers\.(\d+)\./.exec(name)?.[1] ?? Infinity);
    const index = (LAYER_SITES as readonly string[]).indexOf(name.slice(name.lastIndexOf('.') + 1));
    return [layer, index < 0 ? Infinity : index] as const;
  };
  const [x, y] = [order(a), order(b)];
  if (x[0] !== y[0]) return x[0] - y[0];
  if (x[1] !== y[1]) return x[1] - y[1];
  return a < b ? -1 : 1;
}
