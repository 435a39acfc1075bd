// Logits and greedy tokens against transformers + peft, in float32, on small random checkpoints
// (test/parity/make_references.py). Needs a built addon: npm run build:native.

import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { loadBase, type Base, type Result } from '../../src/index.js';
import { boundOf, compare, generate, LIMITS } from './compare.js';
import { readReferences } from './references.js';

const sets = readReferences();

describe.each(sets.flatMap((set) => set.dtypes.map((dtype) => ({ ...set, dtype }))))('$name in $dtype', (set) => {
  let base: Base;
  beforeAll(async () => {
    // K and V are kept in float32, as in the reference; those of a bf16 base are tested below.
    base = await loadBase({ path: set.path, dtype: set.dtype, kvDtype: 'f32', limits: LIMITS, threads: 2 });
    for (const { adapter } of set.cases) {
      if (adapter !== null) await base.registerAdapter(adapter, `${set.path}/adapters/${adapter}`);
    }
  });
  afterAll(() => base?.dispose());

  test.each(set.cases)(
    'with adapter $adapter has the logits and the greedy tokens of transformers',
    async (reference) => {
      const bound = await boundOf(set, reference);
      // The bound must be worth something: over torch's own rounding, and so small that greedy tokens can't differ.
      expect(bound).toBeGreaterThan(reference.torchError);
      expect(bound).toBeLessThan(Math.min(reference.gap, 1e-4 * reference.hiddenNorm * reference.headNorm));
      const result = await generate(base, reference);
      const worst = compare(result, reference, set.top, bound);
      expect(worst, `the largest difference is ${worst}, ${bound} is allowed`).toBeLessThanOrEqual(bound);
      // Rounding in torch and here are draws of the same lot; a wrong epsilon or a lost bit would be more.
      expect(worst).toBeLessThan(8 * reference.torchError);
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
