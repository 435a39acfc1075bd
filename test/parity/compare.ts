// A request that a reference answers, and how far its answer is from the reference.

import { expect } from 'vitest';
import { readAdapterFolder } from '../../src/formats/adapter-folder.js';
import { readBaseFolder } from '../../src/formats/base-folder.js';
import type { Base, Result, TokenLogprob } from '../../src/index.js';
import type { HeldDType } from '../../src/native/binding.js';
import type { Compute } from '../../src/sdk/load-options.js';
import { tolerance, type Reference, type ReferenceSet } from './references.js';

/** Chunks of 48 tokens split every prompt of the references at least once. */
export const LIMITS = { deviceMemory: '32MiB', maxBatchTokens: 48 } as const;

/** The tolerance for a reference; `kv` says how K and V are kept. */
export async function boundOf(
  set: ReferenceSet,
  reference: Reference,
  kv: HeldDType = 'f32',
  compute: Compute = 'f32',
): Promise<number> {
  const folder = await readBaseFolder(set.path);
  if (reference.adapter === null) return tolerance(reference, folder, undefined, kv, compute);
  const adapter = await readAdapterFolder(`${set.path}/adapters/${reference.adapter}`, folder);
  return tolerance(reference, folder, adapter, kv, compute);
}

export function generate(base: Base, reference: Reference): Promise<Result> {
  const { adapter, prompt, greedy } = reference;
  return base.generate({
    tokens: prompt,
    ...(adapter === null ? {} : { adapter }),
    maxTokens: greedy.length,
    temperature: 0,
    ignoreEos: true,
    logprobs: 1,
    promptLogprobs: 20,
  }).result;
}

/** The largest difference of a log-probability, of the prompt and of as many greedy tokens as agree. */
export function compare(result: Result, reference: Reference, top: number, bound: number): number {
  const { prompt, greedy } = reference;
  expect(result.usage).toMatchObject({ input: prompt.length, output: greedy.length });
  const inPrompt = result.promptLogprobs!;
  expect(inPrompt.map(({ token }) => token)).toEqual(prompt.slice(1));
  const agreeing = greedy.findIndex((token, i) => token !== result.tokens[i]);
  const known = [...inPrompt, ...result.logprobs!.slice(0, agreeing < 0 ? undefined : agreeing)];
  let worst = 0;
  known.forEach(({ logprob }, i) => (worst = Math.max(worst, Math.abs(logprob - reference.logprobs[i]!))));
  inPrompt.forEach((position, i) => (worst = Math.max(worst, compareTop(position, reference, i, top, bound))));
  return worst;
}

/** Tokens that are as likely as the last of the list, within the bound, may have taken each other's place. */
function compareTop(position: TokenLogprob, reference: Reference, at: number, top: number, bound: number): number {
  const got = new Map(position.top.map(({ token, logprob }) => [token, logprob]));
  expect(got.size).toBe(top);
  const last = reference.topLogprobs[(at + 1) * top - 1]!;
  let worst = 0;
  for (let i = at * top; i < (at + 1) * top; i++) {
    const logprob = got.get(reference.topIds[i]!);
    if (logprob === undefined) expect(reference.topLogprobs[i]! - last).toBeLessThanOrEqual(2 * bound);
    else worst = Math.max(worst, Math.abs(logprob - reference.topLogprobs[i]!));
  }
  return worst;
}
