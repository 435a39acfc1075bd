// LongRoPE where a sequence becomes longer than the original context in the midst of its answer: from then on all of its
// positions are rotated by the long factors, as transformers' `generate` does it. Needs a built addon: npm run build:native.

import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { loadBase } from '../../src/index.js';
import { boundOf } from './compare.js';
import { DATA, readReferences } from './references.js';

interface Crossing {
  prompt: number[];
  greedy: number[];
  logprobs: number[];
}

const set = readReferences().find(({ name }) => name === 'phi3-long')!;
const crossing = JSON.parse(readFileSync(`${DATA}phi3-long/crossing.json`, 'utf8')) as Crossing;
const ORIGINAL_CONTEXT = 64;

describe('an answer that crosses the original context', () => {
  test('is that of transformers, alone and beside others, in any chunks', async () => {
    expect(crossing.prompt.length).toBeLessThan(ORIGINAL_CONTEXT);
    expect(crossing.prompt.length + crossing.greedy.length).toBeGreaterThan(ORIGINAL_CONTEXT + 20);
    const bound = await boundOf(set, set.cases[0]!);
    for (const maxBatchTokens of [16, 256]) {
      await using base = await loadBase({
        path: set.path,
        kvDtype: 'f32',
        limits: { maxBatchTokens, deviceMemory: '16MiB' },
      });
      const ask = (tokens: number[]) =>
        base.generate({ tokens, maxTokens: crossing.greedy.length, temperature: 0, ignoreEos: true, logprobs: 0 })
          .result;
      const alone = await ask(crossing.prompt);
      expect(alone.tokens).toEqual(crossing.greedy);
      alone.logprobs!.forEach(({ logprob }, i) => {
        expect(Math.abs(logprob - crossing.logprobs[i]!)).toBeLessThanOrEqual(bound + 1e-6);
      });
      const others = set.cases.map(({ prompt }) => ask(prompt));
      expect((await ask(crossing.prompt)).logprobs).toEqual(alone.logprobs);
      await Promise.all(others);
      // The whole of it as a prompt: long from the start, so other numbers before the crossing and the same behind it.
      const whole = await base.generate({
        tokens: [...crossing.prompt, ...crossing.greedy],
        maxTokens: 1,
        promptLogprobs: 0,
      }).result;
      const again = whole.promptLogprobs!.slice(crossing.prompt.length - 1);
      const behind = ORIGINAL_CONTEXT + 1 - crossing.prompt.length;
      expect(again.slice(behind)).toEqual(alone.logprobs!.slice(behind));
      expect(again.slice(0, behind)).not.toEqual(alone.logprobs!.slice(0, behind));
    }
  });
});
