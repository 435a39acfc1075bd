// What generate and chat have in common: the base, its adapters, and how tokens are chosen.

import { basename, join, resolve } from 'node:path';
import { existsSync } from 'node:fs';
import type { Base, GenerateRequest, LoadBaseOptions, LoadProgress } from '../index.js';
import type { OptionTable, Values } from './args.js';
import { CliError, UsageError, placed, throwIfInterrupted } from './errors.js';
import { quoted } from './hints.js';
import type { Io } from './io.js';
import { ProgressBar } from './progress.js';

export const BASE_OPTIONS = {
  base: {
    kind: 'text',
    value: 'DIR',
    path: 'base',
    short: 'b',
    summary: 'folder of the base: config.json, *.safetensors, tokenizer.json',
  },
  adapter: {
    kind: 'list',
    value: '[ID=]DIR',
    path: 'adapter',
    short: 'a',
    summary: 'folder of a PEFT adapter; may be given several times',
  },
  device: {
    kind: 'text',
    value: 'DEVICE',
    summary: 'that computes: cpu, or cuda:0 and so on for a GPU (default: cpu)',
  },
  dtype: {
    kind: 'text',
    value: 'TYPE',
    choices: ['auto', 'f32', 'bf16', 'f16', 'int8', 'int4'],
    summary: "of the weights: auto (the checkpoint's), f32, bf16, f16, int8 or int4",
  },
  compute: {
    kind: 'text',
    value: 'TYPE',
    choices: ['f32', 'bf16'],
    summary: 'f32, or bf16: bf16 weights by activations rounded to bf16, faster on AMD from Zen 4 on (default: f32)',
  },
  'kv-dtype': {
    kind: 'text',
    value: 'TYPE',
    choices: ['auto', 'f32', 'bf16', 'f16', 'int8'],
    summary: 'of the KV cache: auto (that of the weights), f32, bf16, f16, or int8, half of bf16 (default: auto)',
  },
  'adapter-dtype': {
    kind: 'text',
    value: 'TYPE',
    choices: ['auto', 'int8'],
    summary: 'of the adapters in memory: auto (that of the weights), or int8, half of bf16 (default: auto)',
  },
  threads: {
    kind: 'integer',
    value: 'N',
    min: 1,
    max: 1024,
    summary: 'of the engine (default: the cores that the process may use)',
  },
  context: {
    kind: 'integer',
    value: 'N',
    min: 1,
    summary: 'longest conversation in tokens (default: what the base is made for, or what --memory holds)',
  },
  memory: {
    kind: 'text',
    value: 'SIZE',
    summary:
      'for the KV cache and adapters, such as 2GiB; the weights come on top (default: half of what is free at most)',
  },
  'cache-dir': {
    kind: 'text',
    value: 'DIR',
    path: 'folder',
    summary: 'keep the packed weights in DIR, a file of their size: the next start maps it (default: not kept)',
  },
  simd: {
    kind: 'text',
    value: 'LEVEL',
    choices: ['auto', 'scalar', 'avx2', 'avx512', 'avx512-vnni', 'neon', 'neon-dotprod'],
    summary: 'instructions to compute with (default: auto, the best that the processor has)',
  },
} as const satisfies OptionTable;

export const SAMPLING_OPTIONS = {
  'max-tokens': {
    kind: 'integer',
    value: 'N',
    min: 1,
    summary: 'of the answer (default: what is left of the context)',
  },
  temperature: {
    kind: 'number',
    value: 'T',
    min: 0,
    summary: "0 is greedy (default: the base's generation_config.json, else greedy)",
  },
  'top-k': { kind: 'integer', value: 'K', min: 0, summary: 'sample among the K likeliest tokens' },
  'top-p': {
    kind: 'number',
    value: 'P',
    min: 0,
    max: 1,
    summary: 'sample among the likeliest tokens that have probability P together',
  },
  'min-p': {
    kind: 'number',
    value: 'P',
    min: 0,
    max: 1,
    summary: 'sample among tokens at least P times as likely as the likeliest',
  },
  'repetition-penalty': {
    kind: 'number',
    value: 'X',
    min: 0,
    summary: 'of tokens that the prompt or the answer has; 1 is none (default: as for temperature, else 1)',
  },
  'presence-penalty': {
    kind: 'number',
    value: 'X',
    min: -2,
    max: 2,
    summary: 'of tokens that the answer has; 0 is none',
  },
  'frequency-penalty': {
    kind: 'number',
    value: 'X',
    min: -2,
    max: 2,
    summary: 'the same, times how often the answer has the token',
  },
  'logit-bias': {
    kind: 'list',
    value: 'ID=X',
    summary: "add X, -100 to 100 or -Infinity, to a token's logit; may be given several times",
  },
  seed: {
    kind: 'integer',
    value: 'N',
    min: 0,
    max: Number.MAX_SAFE_INTEGER,
    summary: 'of sampling (default: drawn, and printed with --json)',
  },
  stop: { kind: 'list', value: 'TEXT', summary: 'end the answer before this text; may be given several times' },
} as const satisfies OptionTable;

export interface NamedFolder {
  id: string;
  path: string;
}

/** `id=DIR`, or `DIR` with the folder's name as id. */
export function parseAdapters(given: string[]): NamedFolder[] {
  const adapters = given.map((text) => {
    const [, id, path] = /^([^=/\\]+)=(.+)$/s.exec(text) ?? [undefined, basename(resolve(text)), text];
    if (!id || !path) throw new UsageError(`--adapter is '${text}', wanted DIR or ID=DIR`);
    return { id, path };
  });
  const seen = new Set<string>();
  for (const { id } of adapters) {
    if (seen.has(id))
      throw new UsageError(`two adapters are called '${id}'`, `give them names: --adapter one=DIR --adapter two=DIR`);
    seen.add(id);
  }
  return adapters;
}

export function requireFolder(option: string, path: string | undefined): string {
  if (path === undefined) throw new UsageError(`${option} is missing: the folder of a base`);
  if (option === '--base' && isAdapterAlone(path)) {
    const hint = `--base BASE --adapter ${quoted(path)}`;
    throw new CliError('ERR_BASE_NOT_FOUND', `${path} holds an adapter, wanted a base`, hint);
  }
  if (existsSync(path)) return path;
  const looksLikeHub = /^[\w.-]+\/[\w.-]+$/.test(path);
  throw new CliError('ERR_NOT_FOUND', `${path}: no such folder`, looksLikeHub ? `openlora pull ${path}` : undefined);
}

function isAdapterAlone(path: string): boolean {
  return existsSync(join(path, 'adapter_config.json')) && !existsSync(join(path, 'config.json'));
}

export type BaseValues = Values<typeof BASE_OPTIONS>;
export type SamplingValues = Values<typeof SAMPLING_OPTIONS>;

type LoadValues = Partial<
  Pick<
    BaseValues,
    | 'device'
    | 'dtype'
    | 'compute'
    | 'kv-dtype'
    | 'adapter-dtype'
    | 'threads'
    | 'simd'
    | 'context'
    | 'memory'
    | 'cache-dir'
  >
> & { hostMemory?: number; pinnedMemory?: number; adapterDisk?: number };

/** Loads with a progress bar on stderr, where warnings go too; Ctrl-C ends it. */
export async function openBase(
  path: string,
  options: LoadValues,
  io: Io,
  onPhase?: (phase: LoadProgress['phase']) => void,
  more: Pick<LoadBaseOptions, 'prefixCache'> = {},
): Promise<Base> {
  throwIfInterrupted(io.signal);
  const { loadBase } = await import('../index.js');
  const bar = new ProgressBar(io.stderr);
  const { device, dtype, compute, 'kv-dtype': kvDtype, 'adapter-dtype': adapterDtype, threads, simd } = options;
  const { context, memory, hostMemory, pinnedMemory, adapterDisk, 'cache-dir': cacheDir } = options;
  const limits = {
    ...(context === undefined ? {} : { maxContext: context }),
    ...(memory === undefined ? {} : { deviceMemory: memory }),
    ...(hostMemory === undefined ? {} : { hostAdapterMemory: hostMemory }),
    ...(pinnedMemory === undefined ? {} : { pinnedAdapterMemory: pinnedMemory }),
    ...(adapterDisk === undefined ? {} : { adapterCacheDisk: adapterDisk }),
  };
  let base: Base;
  try {
    base = await placed({ base: path }, () =>
      loadBase({
        path,
        limits,
        ...more,
        ...(device === undefined ? {} : { device: device as NonNullable<LoadBaseOptions['device']> }),
        ...(dtype === undefined ? {} : { dtype }),
        ...(kvDtype === undefined ? {} : { kvDtype }),
        ...(compute === undefined ? {} : { compute }),
        ...(adapterDtype === undefined ? {} : { adapterDtype }),
        ...(threads === undefined ? {} : { threads }),
        ...(simd === undefined ? {} : { simd }),
        ...(cacheDir === undefined ? {} : { cacheDir }),
        signal: io.signal,
        onProgress: ({ phase, bytesDone, bytesTotal }) => {
          onPhase?.(phase);
          if (phase === 'ready') return;
          bar.update(phase === 'cache' ? 'writing cache' : `loading ${phase}`, bytesDone, bytesTotal);
        },
      }),
    );
  } finally {
    bar.clear();
  }
  for (const { message } of base.info.warnings) io.stderr.line(`${io.stderr.style.yellow('warning:')} ${message}`);
  return base;
}

/** Registers each folder on the base that was loaded from `folder`; warnings go to stderr. */
export async function registerAll(base: Base, folder: string, adapters: NamedFolder[], io: Io): Promise<void> {
  for (const { id, path } of adapters) {
    requireFolder('--adapter', path);
    const { warnings } = await placed({ adapter: path, base: folder }, () =>
      base.registerAdapter(id, path, { signal: io.signal }),
    );
    for (const { message } of warnings) io.stderr.line(`${io.stderr.style.yellow('warning:')} ${id}: ${message}`);
  }
}

export type Sampling = Pick<
  GenerateRequest,
  | 'maxTokens'
  | 'temperature'
  | 'topK'
  | 'topP'
  | 'minP'
  | 'repetitionPenalty'
  | 'presencePenalty'
  | 'frequencyPenalty'
  | 'logitBias'
  | 'seed'
  | 'stop'
>;

/** `ID=X` each. */
function parseLogitBias(given: string[]): Record<number, number> {
  const bias: Record<number, number> = {};
  for (const text of given) {
    const [, id, value] = /^(\d+)=(\S+)$/.exec(text) ?? [];
    if (id === undefined || Number.isNaN(Number(value)))
      throw new UsageError(`--logit-bias is '${text}', wanted ID=X: a token id and a number`);
    if (Object.hasOwn(bias, Number(id))) throw new UsageError(`--logit-bias was given twice for token ${id}`);
    bias[Number(id)] = Number(value);
  }
  return bias;
}

export function samplingOf(values: SamplingValues): Sampling {
  const sampling: Sampling = {};
  if (values['max-tokens'] !== undefined) sampling.maxTokens = values['max-tokens'];
  if (values.temperature !== undefined) sampling.temperature = values.temperature;
  if (values['top-k'] !== undefined) sampling.topK = values['top-k'];
  if (values['top-p'] !== undefined) sampling.topP = values['top-p'];
  if (values['min-p'] !== undefined) sampling.minP = values['min-p'];
  if (values['repetition-penalty'] !== undefined) sampling.repetitionPenalty = values['repetition-penalty'];
  if (values['presence-penalty'] !== undefined) sampling.presencePenalty = values['presence-penalty'];
  if (values['frequency-penalty'] !== undefined) sampling.frequencyPenalty = values['frequency-penalty'];
  if (values['logit-bias'].length > 0) sampling.logitBias = parseLogitBias(values['logit-bias']);
  if (values.seed !== undefined) sampling.seed = values.seed;
  if (values.stop.length > 0) sampling.stop = values.stop;
  return sampling;
}
