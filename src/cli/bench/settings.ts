// The options of `openlora bench`, and which bench each of them is for.

import type { SimdLevel } from '../../native/binding.js';
import type { OptionTable, Values } from '../args.js';
import { BASE_OPTIONS } from '../base-options.js';
import { UsageError } from '../errors.js';
import { BENCHES, type BenchName } from './report.js';
import { MODEL_NAMES, namedShape, readShape, type Shape } from './shapes.js';

const DTYPES = BASE_OPTIONS.dtype.choices.filter((name) => name !== 'auto');
export type BenchDtype = (typeof DTYPES)[number];
const KV_DTYPES = ['f32', 'bf16', 'f16', 'int8'] as const;

export const BENCH_OPTIONS = {
  quick: { kind: 'flag', summary: 'seconds in place of minutes: does it still run? The numbers mean little' },
  filter: { kind: 'text', value: 'TEXT', summary: 'ops: only the cases with this text in their names' },
  model: {
    kind: 'text',
    value: 'NAME',
    choices: MODEL_NAMES,
    summary: 'decode, prefill, adapters: the shape of the base (default: qwen2.5-0.5b, with --quick tiny)',
  },
  config: {
    kind: 'text',
    value: 'FILE',
    path: 'file',
    summary: 'decode, prefill, adapters: the config.json of a Llama, Mistral, Qwen2 or Qwen3 in place of --model',
  },
  device: { ...BASE_OPTIONS.device, summary: `machine, ops, decode, prefill: ${BASE_OPTIONS.device.summary}` },
  dtype: {
    kind: 'text',
    value: 'TYPE',
    choices: DTYPES,
    summary: 'decode, prefill, adapters: of the weights (default: bf16)',
  },
  'kv-dtype': {
    kind: 'text',
    value: 'TYPE',
    choices: KV_DTYPES,
    summary:
      'decode, prefill, adapters: of the KV cache: f32, bf16, f16 or int8 (default: that of the weights, bf16 beside int8 and int4)',
  },
  compute: { ...BASE_OPTIONS.compute, summary: `decode, prefill, adapters: ${BASE_OPTIONS.compute.summary}` },
  'adapter-dtype': {
    ...BASE_OPTIONS['adapter-dtype'],
    summary: `decode, prefill, adapters: ${BASE_OPTIONS['adapter-dtype'].summary}`,
  },
  batch: {
    kind: 'text',
    value: 'N,…',
    summary: 'decode: requests at once (default: 1,8,32); adapters: one number (default: 8)',
  },
  context: { kind: 'text', value: 'N,…', summary: 'decode: tokens of each prompt (default: 64)' },
  prompt: {
    kind: 'text',
    value: 'N,…',
    summary: 'prefill: tokens of a prompt (default: 512); adapters: one number (default: 16)',
  },
  adapters: {
    kind: 'integer',
    value: 'N',
    min: 0,
    max: 4096,
    summary: 'decode, prefill: distinct adapters, which requests take by turns; 0 for the base alone (default: 8)',
  },
  rank: {
    kind: 'integer',
    value: 'R',
    min: 1,
    max: 256,
    summary: 'decode, prefill: of the adapters (default: 16); adapters: on q and v (default: 8)',
  },
  repeats: {
    kind: 'integer',
    value: 'N',
    min: 1,
    max: 1000,
    summary: 'of each line, of adapters of each trace (default: 5)',
  },
  folder: {
    kind: 'text',
    value: 'DIR',
    path: 'folder',
    summary:
      "decode, prefill: where the weights are written meanwhile; adapters: where they are kept and used again (default: the system's temporary folder, removed at the end)",
  },
  registered: {
    kind: 'text',
    value: 'N,…',
    summary: 'adapters: how many are registered, each with weights of its own (default: 10,100,1000,10000)',
  },
  requests: { kind: 'integer', value: 'N', min: 8, max: 100_000, summary: 'adapters: of a trace (default: 128)' },
  tokens: { kind: 'integer', value: 'N', min: 1, max: 4096, summary: 'adapters: of each answer (default: 16)' },
  threads: { ...BASE_OPTIONS.threads, summary: 'that compute (default: the cores that the process may use)' },
  simd: { ...BASE_OPTIONS.simd, summary: `ops, decode, prefill, adapters: ${BASE_OPTIONS.simd.summary}` },
  html: { kind: 'text', value: 'FILE', path: 'file', summary: 'write a report with plots as well, one page by itself' },
  compare: {
    kind: 'text',
    value: 'A.json',
    path: 'file',
    summary: 'in place of a bench: ratios of two results of --json',
  },
  force: { kind: 'flag', summary: 'compare: also results of different machines or sizes' },
} as const satisfies OptionTable;

export type BenchValues = Values<typeof BENCH_OPTIONS>;

const MODEL_BENCHES: readonly BenchName[] = ['decode', 'prefill', 'adapters'];
/** Options that some benches alone have. */
const ONLY_FOR: Partial<Record<keyof BenchValues, readonly BenchName[]>> = {
  filter: ['ops'],
  model: MODEL_BENCHES,
  config: MODEL_BENCHES,
  device: ['machine', 'ops', 'decode', 'prefill'],
  dtype: MODEL_BENCHES,
  'kv-dtype': MODEL_BENCHES,
  compute: MODEL_BENCHES,
  'adapter-dtype': MODEL_BENCHES,
  batch: ['decode', 'adapters'],
  context: ['decode'],
  prompt: ['prefill', 'adapters'],
  adapters: ['decode', 'prefill'],
  registered: ['adapters'],
  requests: ['adapters'],
  tokens: ['adapters'],
  rank: MODEL_BENCHES,
  repeats: MODEL_BENCHES,
  folder: MODEL_BENCHES,
  simd: ['ops', ...MODEL_BENCHES],
};

export function checkApplies(bench: BenchName, values: BenchValues): void {
  if (values.force) throw new UsageError('--force is for --compare');
  for (const [name, benches] of Object.entries(ONLY_FOR)) {
    if (values[name as keyof BenchValues] !== undefined && !benches.includes(bench))
      throw new UsageError(`--${name} is for ${listed(benches)}, not for ${bench}`);
  }
}

/** Of machine and ops: a GPU has no threads to count and no SIMD levels. */
export function checkDevice({ device = 'cpu', threads, simd }: BenchValues): void {
  if (device !== 'cpu' && (threads !== undefined || simd !== undefined))
    throw new UsageError(`--${threads === undefined ? 'simd' : 'threads'} is for --device cpu, not for ${device}`);
}

const listed = (names: readonly string[]) => names.join(', ').replace(/, (?!.*, )/, ' and ');

/** With --compare no other option makes sense but the two that say where to. */
export function checkCompares(values: BenchValues): void {
  for (const name of Object.keys(BENCH_OPTIONS) as (keyof BenchValues)[]) {
    if (name === 'compare' || name === 'force' || name === 'html') continue;
    if (values[name]) throw new UsageError(`--${name} is for ${BENCHES.join(', ')}, not for --compare`);
  }
}

/** What every bench of a whole model is told of it. */
export interface BaseSettings {
  shape: Shape;
  device: string;
  dtype: BenchDtype;
  kvDtype: (typeof KV_DTYPES)[number];
  compute: 'f32' | 'bf16';
  adapterDtype: 'auto' | 'int8';
  threads: number | undefined;
  simd: SimdLevel | 'auto';
  rank: number;
  repeats: number;
  folder: string | undefined;
  isQuick: boolean;
}

export interface ModelSettings extends BaseSettings {
  bench: 'decode' | 'prefill';
  batches: number[];
  /** Tokens of the prompts. */
  prompts: number[];
  adapters: number;
}

export interface AdaptersSettings extends BaseSettings {
  registered: number[];
  /** Of a trace, and how many of them run at once. */
  requests: number;
  atOnce: number;
  /** Tokens of each prompt, and of each answer. */
  prompt: number;
  tokens: number;
}

/** The KV dtype that goes with weights of `dtype`, written as bf16 where they are int8 and int4. */
export const kvDtypeOf = (dtype: BenchDtype) => (dtype === 'int8' || dtype === 'int4' ? 'bf16' : dtype);

/** Rows of a step, as the SDK chooses them: with more requests a step can't have a row for each. */
export const BATCH_ROWS = 256;
const PROMPT_MAX = 1_000_000;

function baseSettings(values: BenchValues): Omit<BaseSettings, 'rank' | 'repeats'> {
  const { quick } = values;
  if (values.model !== undefined && values.config !== undefined)
    throw new UsageError('--model and --config both name a shape', 'one of them');
  const shape =
    values.config === undefined
      ? namedShape(values.model ?? (quick ? 'tiny' : 'qwen2.5-0.5b'))
      : readShape(values.config);
  const [dtype, compute] = [values.dtype ?? 'bf16', values.compute ?? 'f32'];
  if (compute === 'bf16' && dtype !== 'bf16')
    throw new UsageError(`--compute bf16 is for --dtype bf16, not for ${dtype}`);
  return {
    ...{ shape, isQuick: quick, dtype, compute },
    adapterDtype: values['adapter-dtype'] ?? 'auto',
    kvDtype: values['kv-dtype'] ?? kvDtypeOf(dtype),
    device: values.device ?? 'cpu',
    threads: values.threads,
    simd: values.simd ?? 'auto',
    folder: values.folder,
  };
}

export function modelSettings(bench: 'decode' | 'prefill', values: BenchValues): ModelSettings {
  const { quick } = values;
  const base = baseSettings(values);
  const prompts =
    bench === 'decode'
      ? counts('context', values.context ?? (quick ? '16' : '64'), PROMPT_MAX)
      : counts('prompt', values.prompt ?? (quick ? '64' : '512'), PROMPT_MAX);
  return {
    ...base,
    ...{ bench, prompts },
    batches: bench === 'decode' ? counts('batch', values.batch ?? (quick ? '1,4' : '1,8,32'), BATCH_ROWS) : [1],
    adapters: values.adapters ?? (quick ? 2 : 8),
    rank: values.rank ?? (quick ? 4 : 16),
    repeats: values.repeats ?? (quick ? 2 : 5),
  };
}

const REGISTERED_MAX = 1_000_000;

/** Answers of `adapters` have from half to one and a half times as many tokens as asked for. */
export const longestAnswer = (tokens: number) => (tokens >> 1) + tokens;

export function adaptersSettings(values: BenchValues): AdaptersSettings {
  const { quick } = values;
  const one = (name: 'batch' | 'prompt', text: string, max: number) => {
    const [number, ...others] = counts(name, text, max);
    if (others.length > 0) throw new UsageError(`--${name} is '${text}', wanted one number`);
    return number!;
  };
  const settings: AdaptersSettings = {
    ...baseSettings(values),
    registered: counts('registered', values.registered ?? (quick ? '10,20' : '10,100,1000,10000'), REGISTERED_MAX),
    requests: values.requests ?? (quick ? 16 : 128),
    atOnce: one('batch', values.batch ?? (quick ? '2' : '8'), BATCH_ROWS),
    prompt: one('prompt', values.prompt ?? (quick ? '8' : '16'), PROMPT_MAX),
    tokens: values.tokens ?? (quick ? 4 : 16),
    rank: values.rank ?? 8,
    repeats: values.repeats ?? (quick ? 1 : 5),
  };
  const { prompt, tokens, shape } = settings;
  if (prompt + longestAnswer(tokens) > shape.context)
    throw new UsageError(
      `--prompt ${prompt} and --tokens ${tokens}: ${shape.name} is made for ${shape.context} positions`,
    );
  return settings;
}

/** `1,8,32`, in this order. */
function counts(name: string, text: string, max: number): number[] {
  const numbers = text.split(',').map((word) => (/^\d+$/.test(word) ? Number(word) : NaN));
  if (!numbers.every((number) => number >= 1 && number <= max) || new Set(numbers).size < numbers.length)
    throw new UsageError(`--${name} is '${text}', wanted distinct integers from 1 to ${max}, such as 1,8,32`);
  return numbers;
}
