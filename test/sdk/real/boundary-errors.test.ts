// What the addon says of a request that is not what binding.ts declares: a TypeError that names the place.

import { rmSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { readBaseFolder } from '../../../src/formats/base-folder.js';
import type { ModelSpec, NativeEngine, OpenOptions, RequestSpec } from '../../../src/native/binding.js';
import { loadNative } from '../../../src/native/load.js';
import { noAddon } from './addon.js';
import { rawOpenOptions } from './raw-options.js';
import { writeTinyCheckpoint, type TinyCheckpoint } from './tiny-checkpoint.js';

const request: RequestSpec = {
  id: 1,
  tokens: Uint32Array.of(5, 6, 7),
  adapters: [],
  maxTokens: 1,
  minTokens: 0,
  temperature: 0,
  topK: 0,
  topP: 1,
  minP: 0,
  repetitionPenalty: 1,
  presencePenalty: 0,
  frequencyPenalty: 0,
  biasTokens: new Uint32Array(),
  biasValues: new Float32Array(),
  seed: 0,
  stop: [],
  stopTokens: [],
  eosTokens: [],
  logprobs: -1,
  promptLogprobs: -1,
  tenant: '',
  cacheSalt: '',
  priority: 0,
  deadlineMs: 0,
};

describe.skipIf(noAddon)('the addon refuses', () => {
  let files: TinyCheckpoint;
  let options: OpenOptions;
  let engine: NativeEngine;

  beforeAll(async () => {
    files = writeTinyCheckpoint();
    const base = await readBaseFolder(files.base);
    options = rawOpenOptions(base);
    await new Promise<void>((resolve, reject) => {
      engine = loadNative().binding.open(options, (_, events) => {
        for (const event of events) {
          if (event.kind === 'opened') resolve();
          if (event.kind === 'openFailed') reject(new Error(event.message));
        }
      });
    });
  });
  afterAll(() => {
    engine.close();
    rmSync(files.root, { recursive: true });
  });

  const requests: [string, Partial<RequestSpec>, string][] = [
    ['a seed below 0', { seed: -1 }, 'request.seed must be an integer in [0, 2^53)'],
    ['a stop token beyond 32 bits', { stopTokens: [3, 2 ** 32 + 5] }, 'request.stopTokens must be an array of 32-bit integers'],
    ['a stop token that is a fraction', { stopTokens: [5.5] }, 'request.stopTokens must be an array of 32-bit integers'],
    ['an EOS token that is no number', { eosTokens: [NaN] }, 'request.eosTokens must be an array of 32-bit integers'],
    ['an adapter without a weight', { adapters: [{ handle: 1 } as never] }, 'request.adapters[0].weight must be a number'],
  ]; // prettier-ignore
  test.each(requests)('%s of a request', (_, changes, message) => {
    expect(() => engine.submit({ ...request, ...changes })).toThrow(new TypeError(message));
  });

  test('a frequency table of another kind, by its place in the model', () => {
    const model = { ...options.model, ropes: [{ invFreq: [1], longInvFreq: new Float32Array(), factor: 1 }] };
    const open = () => loadNative().binding.open({ ...options, model: model as unknown as ModelSpec }, () => {});
    expect(open).toThrow(new TypeError('options.model.ropes[0].invFreq must be a typed array of its declared kind'));
  });
});
