// What issue 6 asks of openlora beside its peers, at context 64 and in prefill of 512.

import type { Contestant, OurFormat, Row } from './work.js';

export interface Goal {
  /** openlora's speed over that of the fastest of `peers`; undefined where nothing is asked. */
  ratio?: number;
  peers: readonly Contestant[];
  /** Of the read bandwidth: who reaches it needs no ratio, because the machine doesn't allow more. */
  share?: number;
}

const llama = (...formats: Contestant['format'][]): Contestant[] =>
  formats.map((format) => ({ engine: 'llama.cpp', format }));

interface FormatGoals {
  one: Goal;
  /** Batches of 8 to 32. */
  batch: Goal;
  prefill: Goal;
  adapters: Goal;
}

const [F16_BF16, Q4] = [llama('f16', 'bf16'), llama('q4_0', 'q4_k_m')];
const BF16: FormatGoals = {
  one: { ratio: 1, peers: F16_BF16, share: 0.9 },
  batch: { ratio: 1.3, peers: F16_BF16, share: 0.9 },
  prefill: { ratio: 1.3, peers: F16_BF16 },
  adapters: { ratio: 8, peers: F16_BF16 },
};
const GOALS: Partial<Record<OurFormat, FormatGoals>> = {
  int8: {
    one: { ratio: 1.3, peers: llama('q8_0'), share: 0.9 },
    batch: { ratio: 2.5, peers: llama('f16', 'bf16', 'q8_0'), share: 0.9 },
    prefill: { ratio: 4, peers: llama('q8_0') },
    adapters: { ratio: 8, peers: llama('q8_0') },
  },
  int4: {
    one: { ratio: 1.3, peers: llama('q4_0'), share: 0.85 },
    batch: { ratio: 2.5, peers: Q4, share: 0.85 },
    prefill: { ratio: 2.4, peers: Q4 },
    adapters: { ratio: 8, peers: Q4 },
  },
};
/** f32, f16 and the slower way to compute with bf16 stand beside llama.cpp's half precision; nothing is asked of them. */
const REPORTED: FormatGoals = {
  one: { peers: F16_BF16 },
  batch: { peers: F16_BF16 },
  prefill: { peers: F16_BF16 },
  adapters: { peers: F16_BF16 },
};
const BATCH_MIN = 8;
const BATCH_MAX = 32;
/** Of bf16 in batches and in prefill on a Zen, whose bf16 dot products help. */
const ZEN_BF16_RATIO = 1.4;

/** What the goals are for; other sizes are reported. */
const CONTEXT = 64;
const PROMPT = 512;
const ADAPTERS = 8;

/** `hasZenDots`: an AMD that has bf16 dot products. */
export function goalOf(format: OurFormat, row: Row, context: number, hasZenDots: boolean): Goal {
  const isBF16 = format === (hasZenDots ? 'bf16-dot' : 'bf16'); // the faster way
  const goals = isBF16 ? BF16 : (GOALS[format] ?? REPORTED);
  const [kind, text] = row.split('/') as [string, string];
  const count = Number(text);
  const isOne = kind === 'decode' && count === 1;
  const goal = isOne ? goals.one : goals[kind === 'decode' ? 'batch' : (kind as 'prefill' | 'adapters')];
  const isAsked = {
    decode: context === CONTEXT && (isOne || (count >= BATCH_MIN && count <= BATCH_MAX)),
    prefill: count === PROMPT,
    adapters: context === CONTEXT && count === ADAPTERS,
  }[kind];
  if (!isAsked) return { peers: goal.peers };
  return isBF16 && hasZenDots && !isOne && kind !== 'adapters' ? { ...goal, ratio: ZEN_BF16_RATIO } : goal;
}

/** Beside the peer that serves several adapters in one batch; nothing is asked. */
export function peftGoal(format: OurFormat): Goal | undefined {
  return format === 'bf16' || format === 'f32' ? { peers: [{ engine: 'peft', format }] } : undefined;
}
