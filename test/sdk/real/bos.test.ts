// BOS before prompts that begin with it: the real tokenizer's worker, and `generate` on the real addon.

import { rmSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { loadBase } from '../../../src/index.js';
import { openTokenizer } from '../../../src/formats/tokenizer.js';
import { noAddon } from './addon.js';
import { FIRST_BYTE, SIZES, writeTinyCheckpoint, type TinyCheckpoint } from './tiny-checkpoint.js';

const BOS = 0;
const bytes = (text: string) => [...Buffer.from(text)].map((byte) => byte + FIRST_BYTE);

let files: TinyCheckpoint;
beforeAll(() => {
  files = writeTinyCheckpoint();
});
afterAll(() => rmSync(files.root, { recursive: true }));

test("the worker adds BOS, and with 'once' not where the tokens begin with it", async () => {
  const tokenizer = await openTokenizer({ folder: files.base, vocabSize: SIZES.vocab });
  const encode = async (...args: Parameters<typeof tokenizer.encode>) => [...(await tokenizer.encode(...args))];
  const once = { addSpecialTokens: 'once' } as const;
  expect(await encode('<s>hi')).toEqual([BOS, BOS, ...bytes('hi')]);
  expect(await encode('<s>hi', once)).toEqual([BOS, ...bytes('hi')]);
  expect(await encode('hi<s>', once)).toEqual([BOS, ...bytes('hi'), BOS]);
  // Two that the text spells are two.
  expect(await encode('<s><s>', once)).toEqual([BOS, BOS]);
  expect(await encode('', once)).toEqual([BOS]);
  expect(await encode('<s>', { ...once, parseSpecialTokens: false })).toEqual([BOS, ...bytes('<s>')]);
  expect(await encode('<s>hi', { addSpecialTokens: false })).toEqual([BOS, ...bytes('hi')]);
  await tokenizer.dispose();
});

describe.skipIf(noAddon)('generate', () => {
  test('gives a prompt one BOS, its own if it has one: a rendered conversation is the conversation', async () => {
    await using base = await loadBase({ path: files.base, limits: { deviceMemory: '4MiB' } });
    const ask = { maxTokens: 8, ignoreEos: true, promptLogprobs: 0 };
    /** The prompt's tokens from the second one on, and the answer. */
    const essence = async (request: Parameters<typeof base.generate>[0]) => {
      const { usage, tokens, promptLogprobs } = await base.generate(request).result;
      return { input: usage.input, tokens, promptLogprobs };
    };
    const messages = [{ role: 'user', content: 'hi' }];
    const text = base.renderChat(messages);
    expect(text).toBe('<s>user:hi;>');
    const conversation = await essence({ ...ask, messages });
    expect(conversation.input).toBe(1 + bytes('user:hi;>').length);
    expect(await essence({ ...ask, prompt: text })).toEqual(conversation);
    expect(await essence({ ...ask, prompt: 'user:hi;>' })).toEqual(conversation);
    expect((await essence({ ...ask, prompt: text, parseSpecialTokens: false })).input).toBe(1 + text.length);
    const twice = await essence({ ...ask, tokens: [BOS, BOS, ...bytes('user:hi;>')] });
    expect(twice.input).toBe(conversation.input + 1);
  });
});
