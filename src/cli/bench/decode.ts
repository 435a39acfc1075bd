// `openlora bench decode`: tokens a second of requests that are past their prompts, at each batch size and context, on the
// base alone and with adapters.

import type { Io } from '../io.js';
import type { OnLine } from './machine.js';
import { attentionWork, productWork, type ModelSession, type Room } from './model-session.js';
import { summary, type Line } from './report.js';
import { RunningBatch, type BatchRequest, type Window } from './running-batch.js';
import { BATCH_ROWS, type ModelSettings } from './settings.js';

/** Of a window. */
const STEPS = 16;
const STEPS_QUICK = 4;
/** Tokens that the engine may be ahead of this thread: more than it lets wait for a reader. */
const AHEAD = 256;
/** Prompts of more tokens than this altogether are computed once for all repeats of a line. */
const PROMPT_TOKENS_CHEAP = 8192;

const stepsOf = ({ isQuick }: ModelSettings) => (isQuick ? STEPS_QUICK : STEPS);

/** Room for the prompt, for what the first request generates while the last one's prompt is computed, and for the windows. */
export function decodeRoom(settings: ModelSettings): Room {
  const sequences = Math.max(...settings.batches);
  return { sequences, context: Math.max(...settings.prompts.map((prompt) => lengthMax(settings, sequences, prompt))) };
}

function lengthMax(settings: ModelSettings, batch: number, prompt: number): number {
  const meanwhile = 2 * Math.ceil((batch * prompt) / BATCH_ROWS) + batch;
  return prompt + meanwhile + (settings.repeats + 1) * stepsOf(settings) + AHEAD;
}

export async function benchDecode(session: ModelSession, io: Io, onLine: OnLine): Promise<Line[]> {
  const { batches, prompts } = session.settings;
  await new DecodeRun(session, 1, prompts[0]!, io).warmUp(Math.max(...batches));
  session.notePeakMemory();
  const lines: Line[] = [];
  for (const prompt of prompts) {
    for (const batch of batches) {
      const run = new DecodeRun(session, batch, prompt, io);
      for (const line of await run.measure()) {
        lines.push(line);
        onLine(line);
      }
    }
  }
  return lines;
}

/** One batch size and context. */
class DecodeRun {
  /** Of the base alone, and with adapters. */
  readonly #windows: { base: Window[]; adapters: Window[] } = { base: [], adapters: [] };
  #next = 0;

  constructor(
    private readonly session: ModelSession,
    private readonly batch: number,
    private readonly prompt: number,
    private readonly io: Io,
  ) {}

  async warmUp(batch: number): Promise<void> {
    await new DecodeRun(this.session, batch, this.prompt, this.io).#run('base', 1);
  }

  async measure(): Promise<Line[]> {
    const { session, batch, prompt } = this;
    const { repeats } = session.settings;
    const kinds = session.adapterIds.length > 0 ? (['base', 'adapters'] as const) : (['base'] as const);
    const isCheap = batch * prompt <= PROMPT_TOKENS_CHEAP;
    const firstLook = session.looks;
    for (let run = 0; run < (isCheap ? repeats : 1); run++) {
      // By turns, and each of them first by turns.
      for (const kind of run % 2 === 0 ? kinds : [...kinds].reverse()) {
        await session.look();
        await this.#run(kind, isCheap ? 1 : repeats);
      }
    }
    await session.look();
    const base = this.#line('base', firstLook);
    if (kinds.length === 1) return [base];
    const mixed = this.#line('adapters', firstLook);
    return [base, { ...mixed, retention: mixed.median / base.median }];
  }

  async #run(kind: 'base' | 'adapters', windows: number): Promise<void> {
    const { session, batch, prompt } = this;
    const ids = session.adapterIds;
    const requests = Array.from({ length: batch }, (): BatchRequest => {
      const tokens = session.prompt(prompt);
      return kind === 'base' ? { tokens } : { tokens, adapter: ids[this.#next++ % ids.length]! };
    });
    const tokensMax = lengthMax(session.settings, batch, prompt) - prompt;
    const running = new RunningBatch(session.base, requests, tokensMax, this.io.signal);
    try {
      await running.ready();
      for (let i = 0; i < windows; i++) this.#windows[kind].push(await running.window(stepsOf(session.settings)));
    } finally {
      await running.close();
    }
  }

  #line(kind: 'base' | 'adapters', firstLook: number): Line {
    const { session, batch, prompt } = this;
    const windows = this.#windows[kind];
    const mean = (key: keyof Window) => windows.reduce((sum, window) => sum + window[key], 0) / windows.length;
    const rows = mean('rows');
    const attention = attentionWork(session.settings, rows * mean('context'));
    const bytes = mean('weightBytes') + mean('loraBytes') + attention.bytes;
    const products = productWork(session.settings, rows, rows, kind === 'base' ? 0 : rows);
    const speed = summary(windows.map(({ tokensPerSecond }) => tokensPerSecond));
    const distinct = Math.min(batch, session.adapterIds.length);
    const who = kind === 'base' ? 'base' : `${distinct} ${distinct === 1 ? 'adapter' : 'adapters'}`;
    return {
      name: `batch ${batch}, context ${prompt}, ${who}`,
      ...{ unit: 'tokens/s', better: 'higher', ...speed },
      limits: session.limitsOf(firstLook, (rows / speed.median) * 1000, bytes, products + attention.operations),
    };
  }
}
