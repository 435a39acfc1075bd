// The options of `node bench/peers/run.mjs`.

import { parseArgs } from 'node:util';
import { MODEL_NAMES, type ModelName } from '../../src/cli/bench/shapes.js';
import { GGUF_FORMATS } from './gguf-model.js';
import type { Contestant, Sizes } from './work.js';

export const USAGE = `node bench/peers/run.mjs [options]

  --quick             a tiny shape, seconds: does it still run? The numbers mean nothing
  --model NAME        ${MODEL_NAMES.join(', ')} (default: qwen2.5-0.5b, with --quick tiny)
  --ours TYPE,…       openlora's dtypes (default: f32,bf16,bf16-dot,int8,int4)
  --llama TYPE,…      llama.cpp's formats, or none (default: ${GGUF_FORMATS.join(',')})
  --peft TYPE,…       peft's dtypes, or none (default: bf16,f32; needs --python)
  --python FILE       a python with torch, transformers and peft
  --batch N,…         requests at once (default: 1,8,32)
  --context N         tokens of their prompts (default: 64)
  --prompt N          tokens of the prompt of the prefill; 0 for none (default: 512)
  --adapters N        requests with N adapters; 0 for none (default: 8)
  --rank R            of the adapters (default: 16)
  --tokens N          that each of them generates (default: 32)
  --rounds N          in each of which every engine runs once (default: 5)
  --threads N         of every engine (default: the processors that the process may use)
  --folder DIR        where weights are written meanwhile (default: the system's temporary folder)
  --json FILE         where the result goes (default: peers-MODEL.json in the current folder)
  --html FILE         write a page with plots as well`;

export interface Settings {
  sizes: Omit<Sizes, 'threads'>;
  threads: number;
  contestants: Contestant[];
  python: string | undefined;
  rounds: number;
  folder: string | undefined;
  json: string;
  html: string | undefined;
  isQuick: boolean;
}

/** Of one round, in turn: peer and ours alternate, and those that are compared are neighbours. */
const TURNS = [
  'openlora int8',
  'llama.cpp q8_0',
  'openlora int4',
  'llama.cpp q4_0',
  'openlora bf16-dot',
  'llama.cpp bf16',
  'openlora bf16',
  'peft bf16',
  'openlora f32',
  'llama.cpp f16',
  'peft f32',
  'openlora f16',
  'llama.cpp q4_k_m',
];

const OPTIONS = {
  quick: { type: 'boolean', default: false },
  model: { type: 'string' },
  ours: { type: 'string', default: 'f32,bf16,bf16-dot,int8,int4' },
  llama: { type: 'string', default: GGUF_FORMATS.join(',') },
  peft: { type: 'string', default: 'bf16,f32' },
  python: { type: 'string' },
  batch: { type: 'string' },
  context: { type: 'string' },
  prompt: { type: 'string' },
  adapters: { type: 'string' },
  rank: { type: 'string' },
  tokens: { type: 'string' },
  rounds: { type: 'string' },
  threads: { type: 'string' },
  folder: { type: 'string' },
  json: { type: 'string' },
  html: { type: 'string' },
} as const;

/** Throws an Error that says what is wrong. */
export function readSettings(args: string[]): Settings {
  const { values } = parseArgs({ args, options: OPTIONS });
  const { quick: isQuick } = values;
  const model = values.model ?? (isQuick ? 'tiny' : 'qwen2.5-0.5b');
  if (!(MODEL_NAMES as string[]).includes(model))
    throw new Error(`--model is '${model}', wanted one of ${MODEL_NAMES.join(', ')}`);
  const number = (name: keyof typeof values, full: number, quick: number, least = 1) =>
    integer(name, String(values[name] ?? (isQuick ? quick : full)), least);
  const batches = (values.batch ?? (isQuick ? '1,4' : '1,8,32')).split(',').map((text) => integer('batch', text, 1));
  return {
    sizes: {
      ...{ model: model as ModelName, batches },
      context: number('context', 64, 16),
      prompt: number('prompt', 512, 64, 0),
      adapters: number('adapters', 8, 2, 0),
      rank: number('rank', 16, 4),
      tokens: number('tokens', 32, 4, 2),
      ...(isQuick ? { steps: 4, windows: 1 } : { steps: 16, windows: 3 }),
    },
    threads: values.threads === undefined ? 0 : integer('threads', values.threads, 1),
    contestants: contestants(values),
    python: values.python,
    rounds: number('rounds', 5, 2),
    folder: values.folder,
    json: values.json ?? `peers-${model}.json`,
    html: values.html,
    isQuick,
  };
}

function integer(name: string, text: string, least: number): number {
  const value = Number(text);
  if (!/^\d+$/.test(text) || value < least) throw new Error(`--${name} is '${text}', wanted an integer from ${least}`);
  return value;
}

function contestants(values: { ours: string; llama: string; peft: string }): Contestant[] {
  const named = (engine: Contestant['engine'], option: keyof typeof values) => {
    const formats = values[option] === 'none' ? [] : values[option].split(',');
    return formats.map((format) => {
      if (!TURNS.includes(`${engine} ${format}`)) {
        const known = TURNS.filter((name) => name.startsWith(`${engine} `)).map((name) => name.split(' ')[1]);
        throw new Error(`--${option} is '${values[option]}', wanted some of ${known.join(', ')}, or none`);
      }
      return `${engine} ${format}`;
    });
  };
  const wanted = [...named('openlora', 'ours'), ...named('llama.cpp', 'llama'), ...named('peft', 'peft')];
  return TURNS.filter((name) => wanted.includes(name)).map((name) => {
    const [engine, format] = name.split(' ');
    return { engine, format } as Contestant;
  });
}
