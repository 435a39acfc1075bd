// What a child process is told and what it answers. Each engine runs in one of its own, so that its memory is free again
// when the next one runs, and never two of them at once.

import type { ModelName } from '../../src/cli/bench/shapes.js';
import type { BenchDtype } from '../../src/cli/bench/settings.js';
import type { GgufFormat } from './gguf-model.js';

/** `decode/8`: requests at once; `prefill/512`: tokens of the prompt; `adapters/8`: requests, each with its own. */
export type Row = `${'decode' | 'prefill' | 'adapters'}/${number}`;

export interface Sizes {
  model: ModelName;
  threads: number;
  /** Requests at once, and tokens of their prompts. */
  batches: number[];
  context: number;
  prompt: number;
  /** Of the row with adapters; 0 for none. */
  adapters: number;
  rank: number;
  /** That each request with an adapter generates after its prompt of `context` tokens. */
  tokens: number;
  /** Of a window while decoding, and windows of which the median counts. */
  steps: number;
  windows: number;
}

export type Engine = 'openlora' | 'llama.cpp' | 'peft';

/** `bf16-dot`: bf16 weights by activations rounded to bf16 (`compute: 'bf16'`). */
export type OurFormat = BenchDtype | 'bf16-dot';

export interface Contestant {
  engine: Engine;
  format: OurFormat | GgufFormat;
}

export interface Work extends Contestant {
  sizes: Sizes;
  /** openlora, peft: the checkpoint's folder; llama.cpp: the GGUF file. */
  base: string;
  /** Folders, or GGUF files. */
  adapters: string[];
}

export interface Sample {
  row: Row;
  tokensPerSecond: number;
  /** openlora: what one step reads, by its counters, with KV. */
  bytes?: number;
  /** Of a row with adapters: how they were served. */
  way?: string;
}

export interface Answer {
  samples: Sample[];
  loadMs: number;
  peakRssMib: number;
  /** Versions, threads, instructions, dtypes of KV: the same in each run. */
  facts: Record<string, string | number>;
}

export const nameOf = ({ engine, format }: Contestant): string => `${engine} ${format}`;

export function titleOf(row: Row, { context, tokens }: Pick<Sizes, 'context' | 'tokens'>): string {
  const [kind, count] = row.split('/') as [string, string];
  if (kind === 'prefill') return `prefill of ${count}`;
  if (kind === 'decode') return `decode, batch ${count}, context ${context}`;
  return `${count} requests, ${count} adapters, ${context} + ${tokens} tokens`;
}

/** A pseudo-random prompt; the same for each engine. */
export function promptOf(length: number, vocab: number, seed: number): number[] {
  let state = (0x2545f491 ^ Math.imul(seed + 1, 0x9e3779b9)) >>> 0 || 1;
  return Array.from({ length }, () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return 300 + ((state >>> 0) % (vocab - 300));
  });
}

/** What the process was given: JSON as its only argument. */
export const readWork = (): Work => JSON.parse(process.argv[2]!) as Work;

/** The last line on stdout; other lines may come before. */
export async function answer(result: Answer): Promise<never> {
  await new Promise<void>((resolve) => process.stdout.write(`\n${JSON.stringify(result)}\n`, () => resolve()));
  process.exit(0);
}
