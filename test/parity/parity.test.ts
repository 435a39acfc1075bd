// Logits and greedy tokens against transformers + peft, in float32, on small random checkpoints
// (test/parity/make_references.py). Needs a built addon: npm run build:native.

import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { readAdapterFolder } from '../../src/formats/adapter-folder.js';
import { readBaseFolder } from '../../src/formats/base-folder.js';
import { loadBase, type Base, type Result, type TokenLogprob } from '../../src/index.js';
import { readReferences, tolerance, type Reference, type ReferenceSet } from './references.js';

const sets = readReferences();
const LIMITS = { deviceMemory: '32MiB', maxBatchTokens: 48 } as const;

describe.each(sets)('$name', (set) => {
  let base: Base;
  beforeAll(async () => {
    // K and V are kept in float32, as in the reference; those of a bf16 base are tested below.
    base = await loadBase({ path: set.path, kvDtype: 'f32', limits: LIMITS, threads: 2 });
    for (const { adapter } of set.cases) {
      if (adapter !== null) await base.registerAdapter(adapter, `${set.path}/adapters/${adapter}`);
    }
  });
  afterAll(() => base?.dispose());

  test.each(set.cases)(
    'with adapter $adapter has the logits and the greedy tokens of transformers',
    async (reference) => {
      const bound = await boundOf(set, reference);
      // The bound must be worth something: over torch's own rounding, and so small that greedy tokens can't differ, but
      // where a scale is no power of two and B is kept in 16 bits.
      expect(bound).toBeGreaterThan(reference.torchError);
      expect(bound).toBeLessThan(
        isRounded(reference, set) ? 0.2 : Math.min(reference.gap, 1e-4 * reference.hiddenNorm * reference.headNorm),
      );
      const result = await generate(base, reference);
      const worst = compare(result, reference, set.top, bound);
      expect(worst, `the largest difference is ${worst}, ${bound} is allowed`).toBeLessThanOrEqual(bound);
      if (reference.gap > bound) expect(result.tokens).toEqual(reference.greedy);
    },
  );

  test('has the same in one mixed batch as alone', async () => {
    const alone: Result[] = [];
    for (const reference of set.cases) alone.push(await generate(base, reference));
    const mixed = await Promise.all(set.cases.map((reference) => generate(base, reference)));
    mixed.forEach((result, i) => {
      expect(result.tokens).toEqual(alone[i]!.tokens);
      expect(result.promptLogprobs).toEqual(alone[i]!.promptLogprobs);
      expect(result.logprobs).toEqual(alone[i]!.logprobs);
    });
  });
});

describe('the references', () => {
  test('differ from adapter to adapter', () => {
    for (const { cases } of sets) {
      const answers = new Set(cases.map(({ greedy }) => greedy.join()));
      expect(answers.size).toBe(cases.length);
      for (const { prompt, gap } of cases) {
        expect(prompt.length).toBeGreaterThanOrEqual(80);
        expect(gap).toBeGreaterThan(1e-3);
      }
    }
  });
});

const isRounded = ({ adapter }: Reference, { dtype }: ReferenceSet) => dtype !== 'f32' && /rslora/.test(adapter ?? '');

async function boundOf(set: ReferenceSet, reference: Reference): Promise<number> {
  const folder = await readBaseFolder(set.path);
  if (reference.adapter === null) return tolerance(reference, folder);
  const adapter = await readAdapterFolder(`${set.path}/adapters/${reference.adapter}`, folder);
  return tolerance(reference, folder, adapter, set.dtype);
}

function generate(base: Base, reference: Reference): Promise<Result> {
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
function compare(result: Result, reference: Reference, top: number, bound: number): number {
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
