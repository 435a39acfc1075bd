// Greedy answers with penalties and biases against transformers (test/parity/make_sampling_references.py). Needs a built
// addon: npm run build:native.

import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { loadBase } from '../../src/index.js';
import { LIMITS } from './compare.js';
import { DATA, readReferences } from './references.js';

interface Case {
  checkpoint: string;
  repetition_penalty?: number;
  sequence_bias?: Record<string, number>;
  prompt: number[];
  greedy: number[];
  /** Smallest difference of the two best processed scores on the path. */
  gap: number;
  /** Log-softmax of the raw logits of `greedy`. */
  logprobs: number[];
}

const cases = JSON.parse(
  readFileSync(fileURLToPath(new URL('../data/sampling/greedy.json', import.meta.url)), 'utf8'),
) as Case[];

/**
 * Largest difference of a raw log-probability: eight times what torch's own float32 is off by on this checkpoint, as in
 * parity.test.ts. A score is such a logit, at most `repetition_penalty` (or its inverse) times, so two of them can
 * change places where their gap is below twice that.
 */
function boundOf({ checkpoint }: Case): number {
  const { cases: plain } = readReferences().find(({ name }) => name === checkpoint)!;
  return 8 * plain.find(({ adapter }) => adapter === null)!.torchError;
}

function answer(path: string, { prompt, greedy }: Case, o: object) {
  return loadBase({ path, kvDtype: 'f32', limits: LIMITS, threads: 2 }).then(async (base) => {
    try {
      return await base.generate({ tokens: prompt, maxTokens: greedy.length, ignoreEos: true, logprobs: 0, ...o })
        .result;
    } finally {
      await base.dispose();
    }
  });
}

describe('greedy answers', () => {
  test.each(cases.map((one) => [`${one.checkpoint}, ${nameOf(one)}`, one] as const))(
    'are those of transformers: %s',
    async (_, one) => {
      const { repetition_penalty: penalty = 1, sequence_bias: logitBias } = one;
      const bound = boundOf(one);
      expect(one.gap).toBeGreaterThan(2 * bound * Math.max(penalty, 1 / penalty));
      expect(one.greedy).toHaveLength(64);
      const result = await answer(`${DATA}${one.checkpoint}`, one, {
        repetitionPenalty: penalty,
        ...(logitBias && { logitBias }),
      });
      expect(result.tokens).toEqual(one.greedy);
      result.logprobs!.forEach(({ logprob }, i) =>
        expect(Math.abs(logprob - one.logprobs[i]!)).toBeLessThanOrEqual(bound),
      );
    },
  );

  test('take the repetition penalty of generation_config.json', async () => {
    const one = cases.find((c) => c.repetition_penalty !== undefined && !c.sequence_bias)!;
    const path = mkdtempSync(join(tmpdir(), 'openlora-penalty-'));
    try {
      cpSync(`${DATA}${one.checkpoint}`, path, { recursive: true });
      const file = join(path, 'generation_config.json');
      const config = JSON.parse(readFileSync(file, 'utf8')) as object;
      writeFileSync(file, JSON.stringify({ ...config, repetition_penalty: one.repetition_penalty }));
      expect((await answer(path, one, {})).tokens).toEqual(one.greedy);
      expect((await answer(path, one, { repetitionPenalty: 1 })).tokens).not.toEqual(one.greedy);
    } finally {
      rmSync(path, { recursive: true, force: true });
    }
  });
});

function nameOf({ repetition_penalty: penalty, sequence_bias: bias }: Case): string {
  return [penalty === undefined ? [] : `penalty ${penalty}`, bias === undefined ? [] : 'biases'].flat().join(' and ');
}
