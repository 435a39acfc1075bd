// The demo's work: all requests at once on one base, and what the engine says it did.

import type { Base, EngineStats, FinishReason, Generation } from '../../index.js';
import { reportOf } from '../errors.js';
import type { DemoRequest } from './tasks.js';

export type RowState = 'waiting' | 'streaming' | 'right' | 'wrong' | 'failed';

/** A request and what came of it so far. */
export interface DemoRow extends DemoRequest {
  answer: string;
  state: RowState;
  tokens: number;
  /** From `generate()`, as the engine measured it. */
  ttftMs: number | undefined;
  /** After the first token; none for answers of one token. */
  tokensPerSecond: number | undefined;
  finishReason?: FinishReason;
  error?: string;
}

export interface Served {
  rows: DemoRow[];
  /** From the first `generate()` to the last end. */
  wallMs: number;
  tokensIn: number;
  tokensOut: number;
  steps: number;
  rowsPerStep: number;
  weightBytesRead: number;
  loraBytesRead: number;
}

export function rowsOf(requests: DemoRequest[]): DemoRow[] {
  return requests.map((request) => ({
    ...request,
    answer: '',
    state: 'waiting',
    tokens: 0,
    ttftMs: undefined,
    tokensPerSecond: undefined,
  }));
}

/** Fills `rows` as answers arrive; `signal` cancels all of them. */
export async function serve(base: Base, rows: DemoRow[], signal: AbortSignal): Promise<Served> {
  const before = base.stats();
  const from = performance.now();
  const generations = rows.map(({ prompt, adapter }) => base.generate({ prompt, adapter, temperature: 0 }));
  const cancel = () => generations.forEach((generation) => generation.cancel());
  signal.addEventListener('abort', cancel, { once: true });
  await Promise.all(generations.map((generation, i) => follow(generation, rows[i]!)));
  signal.removeEventListener('abort', cancel);
  const wallMs = performance.now() - from;
  return { rows, wallMs, ...difference(before, base.stats()) };
}

async function follow(generation: Generation, row: DemoRow): Promise<void> {
  try {
    for await (const { text } of generation) {
      row.state = 'streaming';
      row.answer += text;
    }
    const { timing, usage, finishReason } = await generation.result;
    row.finishReason = finishReason;
    row.tokens = usage.output;
    row.ttftMs = timing.ttftMs;
    if (usage.output > 1 && timing.tpotMs > 0) row.tokensPerSecond = 1000 / timing.tpotMs;
    row.state = finishReason === 'eos' && row.answer === row.wanted ? 'right' : 'wrong';
  } catch (error) {
    row.state = 'failed';
    row.error = reportOf(error).message;
  }
}

function difference(before: EngineStats, after: EngineStats): Omit<Served, 'rows' | 'wallMs'> {
  const steps = after.steps - before.steps;
  return {
    tokensIn: after.tokensIn - before.tokensIn,
    tokensOut: after.tokensOut - before.tokensOut,
    steps,
    rowsPerStep: steps > 0 ? (after.rows - before.rows) / steps : 0,
    weightBytesRead: after.weightBytesRead - before.weightBytesRead,
    loraBytesRead: after.loraBytesRead - before.loraBytesRead,
  };
}
