// Every option of a request arrives at the engine as what it is: each is asked on the real addon for an effect that no other
// option has.

import { rmSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { loadBase, type Base, type GenerateRequest, type Result } from '../../../src/index.js';
import { noAddon } from './addon.js';
import { SIZES, writeTinyCheckpoint, type TinyCheckpoint } from './tiny-checkpoint.js';

const HOT = { temperature: 5, seed: 7 };
const EOS = 1;

describe.skipIf(noAddon)('a request', () => {
  let files: TinyCheckpoint;
  let base: Base;
  beforeAll(async () => {
    files = writeTinyCheckpoint();
    base = await loadBase({ path: files.base, threads: 1, limits: { maxContext: 512, deviceMemory: '8MiB' } });
    await base.registerAdapter('a', files.adapters[1]!);
  });
  afterAll(async () => {
    await base.dispose();
    rmSync(files.root, { recursive: true });
  });

  const ask = (request: Partial<GenerateRequest> = {}): Promise<Result> =>
    base.generate({ prompt: 'hello', maxTokens: 24, ignoreEos: true, ...request }).result;
  const tokensOf = async (request: Partial<GenerateRequest> = {}) => (await ask(request)).tokens;
  const forbidden = (tokens: Iterable<number>) => Object.fromEntries([...tokens].map((token) => [token, -Infinity]));

  test.each<[string, Partial<GenerateRequest>, Partial<GenerateRequest>]>([
    ['topK', { topK: 1 }, { topK: SIZES.vocab }],
    ['topP', { topP: 1e-6 }, { topP: 1 }],
    ['minP', { minP: 1 }, { minP: 0 }],
  ])('%s leaves the likeliest token alone at one end, and every token at the other', async (_, narrow, wide) => {
    const greedy = await tokensOf();
    const hot = await tokensOf(HOT);
    expect(hot).not.toEqual(greedy);
    expect(await tokensOf({ ...HOT, ...narrow })).toEqual(greedy);
    expect(await tokensOf({ ...HOT, ...wide })).toEqual(hot);
  });

  test('topK 2 draws from the two likeliest tokens, and from both', async () => {
    const { tokens, logprobs } = await ask({ ...HOT, topK: 2, logprobs: 3 });
    const places = tokens.map((token, i) => logprobs![i]!.top.findIndex((entry) => entry.token === token));
    expect(new Set(places)).toEqual(new Set([0, 1]));
  });

  test('minTokens holds off the end of sequence and stop tokens', async () => {
    // Nearly always the likeliest token.
    const eager = { logitBias: { [EOS]: 100 }, ignoreEos: false };
    expect(await ask(eager)).toMatchObject({ tokens: [EOS], finishReason: 'eos' });
    const late = await ask({ ...eager, minTokens: 5 });
    expect(late.finishReason).toBe('eos');
    expect(late.tokens).toHaveLength(6);
    expect(late.tokens.indexOf(EOS)).toBe(5);

    const plain = await tokensOf();
    const stopTokens = [plain[2]!];
    expect((await tokensOf({ stopTokens })).length).toBe(plain.indexOf(plain[2]!) + 1);
    const held = await ask({ stopTokens, minTokens: 20 });
    expect(held.tokens.slice(0, 20)).not.toContain(plain[2]);
    // What `minTokens` does is a ban of that token.
    const banned = await tokensOf({ logitBias: forbidden(stopTokens), maxTokens: 20 });
    expect(held.tokens.slice(0, 20)).toEqual(banned);
  });

  test('minTokens holds off stop strings', async () => {
    const { text, tokens } = await ask({ temperature: 1, seed: 3, maxTokens: 60 });
    const plain = /[ -~]{2}/.exec(text)!;
    const stops = { temperature: 1, seed: 3, maxTokens: 60, stop: [plain[0]] };
    const early = await ask(stops);
    expect(early.finishReason).toBe('stop');
    const late = await ask({ ...stops, minTokens: early.tokens.length + 1 });
    expect(late.tokens.length).toBeGreaterThan(early.tokens.length);
    expect(late.tokens).toEqual(tokens.slice(0, late.tokens.length));
  });

  test('presencePenalty and frequencyPenalty are biases that follow the answer', async () => {
    // A few tokens that no other can beat, so that penalties of a few logits make the answer another.
    const favourites = [70, 71, 72, 73, 74, 75];
    const biased = (bias: (token: number) => number) => Object.fromEntries(favourites.map((id) => [id, bias(id)]));
    const prompt = [...(await base.tokenizer.encode('hello'))];
    const plain = await tokensOf({ logitBias: biased(() => 95) });
    const presence = await tokensOf({ logitBias: biased(() => 95), presencePenalty: 1.5 });
    const frequency = await tokensOf({ logitBias: biased(() => 95), frequencyPenalty: 1.5 });
    expect(new Set([plain, presence, frequency].map(String)).size).toBe(3);
    const weights: [number[], (count: number) => number][] = [
      [presence, (count) => 1.5 * Math.min(count, 1)],
      [frequency, (count) => 1.5 * count],
    ];
    for (const [tokens, weight] of weights) {
      for (const [i, token] of tokens.entries()) {
        const before = tokens.slice(0, i);
        const logitBias = biased((id) => 95 - weight(before.filter((earlier) => earlier === id).length));
        const step = base.generate({ tokens: [...prompt, ...before], maxTokens: 1, ignoreEos: true, logitBias });
        expect((await step.result).tokens).toEqual([token]);
      }
    }
  });

  test('deadlineMs ends it in the engine, others go on', async () => {
    const neighbour = tokensOf({ maxTokens: 60 });
    const late = base.generate({ tokens: [0, 70, 71], maxTokens: 500, ignoreEos: true, deadlineMs: 1 });
    await expect(late.result).rejects.toMatchObject({
      code: 'ERR_DEADLINE',
      message: expect.stringMatching(/within deadlineMs = 1; \d+ tokens were generated/),
    });
    expect(await neighbour).toEqual(await tokensOf({ maxTokens: 60 }));
  });

  test('with a higher priority goes first, though it came last', async () => {
    const limits = { maxContext: 4096, deviceMemory: '8MiB', maxBatchTokens: 1 };
    await using narrow = await loadBase({ path: files.base, threads: 1, limits });
    const ended: string[] = [];
    const run = (name: string, priority: number, prompt: number) => {
      const request = { tokens: Array<number>(prompt).fill(70), maxTokens: 4, ignoreEos: true, priority };
      return narrow.generate(request).result.then(() => ended.push(name));
    };
    // One row a step: thousands of them are the long prompt's, and what comes meanwhile waits.
    await Promise.all([run('long', 9, 4000), run('low', -5, 4), run('usual', 0, 4), run('high', 5, 4)]);
    expect(ended).toEqual(['long', 'high', 'usual', 'low']);
  });

  test('says how long it waited, and where its adapter was', async () => {
    const timed = async (request: Partial<GenerateRequest>) => {
      const startedAt = performance.now();
      const { timing, adapters, tokens } = await ask(request);
      const wallMs = performance.now() - startedAt;
      const { queuedMs, adapterLoadMs, ttftMs, tpotMs } = timing;
      for (const ms of Object.values(timing)) expect(ms).toBeGreaterThanOrEqual(0);
      expect(ttftMs).toBeGreaterThan(0);
      expect(tpotMs).toBeGreaterThan(0);
      expect(queuedMs).toBeLessThanOrEqual(ttftMs);
      expect(adapterLoadMs).toBeLessThanOrEqual(queuedMs);
      expect(ttftMs + (tokens.length - 1) * tpotMs).toBeLessThanOrEqual(wallMs);
      return { adapterLoadMs, tier: adapters[0]?.tier };
    };
    expect(await timed({})).toEqual({ adapterLoadMs: 0, tier: undefined });
    const first = await timed({ adapter: 'a' });
    expect(first.tier).toBe('registered');
    expect(first.adapterLoadMs).toBeGreaterThan(0);
    expect(await timed({ adapter: 'a' })).toEqual({ adapterLoadMs: 0, tier: 'resident' });
  });
});
