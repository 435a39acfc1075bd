// The SDK on the real addon. Skipped where no addon was built (npm run build:native).

import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { loadBase, type Base, type GenerateRequest, type LoadProgress, type Result } from '../../../src/index.js';
import { codeOf } from '../fake-parts.js';
import { noAddon } from './addon.js';
import { copyOf, patch, removeDamaged } from './damage.js';
import { FIRST_BYTE, SIZES, writeAdapter, writeTinyCheckpoint, type TinyCheckpoint } from './tiny-checkpoint.js';

describe.skipIf(noAddon)('on the real addon', () => {
  let files: TinyCheckpoint;
  let base: Base;
  const progress: LoadProgress[] = [];

  beforeAll(async () => {
    files = writeTinyCheckpoint();
    base = await loadBase({
      path: files.base,
      threads: 2,
      limits: { maxContext: 512 },
      onProgress: (event) => progress.push(event),
    });
    for (const [i, folder] of files.adapters.entries()) await base.registerAdapter(`a${i}`, folder);
  });
  afterAll(async () => {
    await base.dispose();
    rmSync(files.root, { recursive: true });
  });

  const ask = (request: Partial<GenerateRequest> = {}) =>
    base.generate({ prompt: 'hello', maxTokens: 24, ignoreEos: true, ...request });

  test('a base says what it is, and its loading was reported', () => {
    expect(base.info).toMatchObject({ family: 'llama', dtype: 'f32', device: 'cpu', vocabSize: SIZES.vocab });
    expect(base.info.contextLength).toBe(512);
    expect(base.info.digest).toMatch(/^[0-9a-f]{64}$/);
    const phases = [...new Set(progress.map(({ phase }) => phase))];
    expect(phases).toEqual(['tokenizer', 'weights', 'pack', 'ready']);
    expect(progress.filter(({ phase }) => phase === 'ready')).toHaveLength(1);
    expect(progress.every(({ bytesDone, bytesTotal }) => bytesDone <= bytesTotal)).toBe(true);
  });

  test('adapters are hashed, and have a tier', () => {
    const infos = [...base.adapters.list()];
    expect(infos.map(({ id }) => id)).toEqual(['a0', 'a1', 'a2', 'a3']);
    expect(new Set(infos.map(({ generation }) => generation)).size).toBe(4);
    for (const { generation, bytes, dtype } of infos) {
      expect(generation).toMatch(/^[0-9a-f]{64}$/);
      expect(bytes).toBeGreaterThan(0);
      expect(dtype).toBe('f32');
    }
  });

  test('streamed text is the result, and decodes from its tokens', async () => {
    const generation = ask({ maxTokens: 60 });
    let text = '';
    const tokens: number[] = [];
    for await (const chunk of generation) {
      text += chunk.text;
      tokens.push(...chunk.tokens);
    }
    const result = await generation.result;
    expect(result).toMatchObject({
      text,
      tokens,
      finishReason: 'length',
      usage: { input: 6, output: 60, cachedInput: 0 },
    });
    expect(base.tokenizer.decode(tokens)).toBe(text);
    expect(result.timing.ttftMs).toBeGreaterThan(0);
  });

  test('adapters answer differently from the base and from each other, and each says its generation', async () => {
    const results = await Promise.all(
      [undefined, 'a0', 'a1', 'a2', 'a3'].map((adapter) => ask(adapter ? { adapter } : {}).result),
    );
    expect(new Set(results.map(({ text }) => text)).size).toBe(5);
    expect(results[3]!.adapters).toEqual([
      { id: 'a2', generation: base.adapters.get('a2')!.generation, tier: expect.any(String), weight: 1 },
    ]);
    expect(base.adapters.stats().resident).toBe(4);
  });

  test('mixed in one batch, every answer is what it is alone, bit for bit', async () => {
    const requests = Array.from({ length: 40 }, (_, i): GenerateRequest => ({
      prompt: 'x'.repeat(1 + ((i * 7) % 40)),
      maxTokens: 5 + ((i * 5) % 30),
      ignoreEos: true,
      logprobs: 2,
      seed: i,
      temperature: i % 2,
      ...(i % 5 === 4 ? {} : { adapter: `a${i % 5}` }),
    }));
    const essence = ({ tokens, logprobs, text }: Result) => ({ tokens, logprobs, text });
    const mixed = await Promise.all(requests.map((request) => base.generate(request).result));
    for (const [i, request] of requests.entries()) {
      expect(essence(await base.generate(request).result)).toEqual(essence(mixed[i]!));
    }
  });

  test('log-probabilities are a distribution, best first, and the greedy token leads', async () => {
    const result = await ask({ logprobs: 20, promptLogprobs: 3 }).result;
    expect(result.logprobs).toHaveLength(24);
    for (const [i, { token, logprob, top }] of result.logprobs!.entries()) {
      expect(token).toBe(result.tokens[i]);
      expect(top).toHaveLength(20);
      expect(top[0]).toEqual({ token, logprob });
      expect(top.map((entry) => entry.logprob)).toEqual(top.map((entry) => entry.logprob).sort((a, b) => b - a));
      expect(top.reduce((sum, entry) => sum + Math.exp(entry.logprob), 0)).toBeLessThanOrEqual(1 + 1e-5);
    }
    expect(result.promptLogprobs!.map(({ token }) => token)).toEqual(
      [...Buffer.from('hello')].map((byte) => byte + FIRST_BYTE),
    );
    expect(result.promptLogprobs!.every(({ top }) => top.length === 3)).toBe(true);
    expect((await ask({ logprobs: 0 }).result).logprobs![0]!.top).toEqual([]);
  });

  test('a stop string ends the answer and is no part of it; a stop token too', async () => {
    const { text, tokens } = await ask({ temperature: 1, seed: 3, maxTokens: 60 }).result;
    const plain = /[ -~]{2}/.exec(text)!;
    const stopped = ask({ temperature: 1, seed: 3, maxTokens: 60, stop: [plain[0]] });
    let streamed = '';
    for await (const chunk of stopped) streamed += chunk.text;
    const result = await stopped.result;
    expect(result).toMatchObject({ text: text.slice(0, text.indexOf(plain[0])), finishReason: 'stop' });
    expect(streamed).toBe(result.text);
    const byToken = await ask({ temperature: 1, seed: 3, maxTokens: 60, stopTokens: [tokens[5]!] }).result;
    expect(byToken.finishReason).toBe('stop');
    expect(byToken.tokens).toEqual(tokens.slice(0, tokens.indexOf(tokens[5]!) + 1));
  });

  test('conversations go through the template, with one BOS', async () => {
    const messages = [{ role: 'user', content: 'hi' }];
    expect(base.renderChat(messages)).toBe('<s>user:hi;>');
    const byChat = await base.generate({ messages, maxTokens: 5, ignoreEos: true }).result;
    const tokens = [0, ...Buffer.from('user:hi;>').map((byte) => byte + FIRST_BYTE)];
    const byTokens = await base.generate({ tokens, maxTokens: 5, ignoreEos: true }).result;
    expect(byChat.usage.input).toBe(tokens.length);
    expect(byChat.tokens).toEqual(byTokens.tokens);
  });

  test('conversations with an adapter go through its own template, with its own special tokens and one BOS', async () => {
    const folder = writeAdapter(join(files.root, 'with-template'), 4, 11);
    writeFileSync(
      join(folder, 'chat_template.jinja'),
      '{{ bos_token }}{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}',
    );
    writeFileSync(join(folder, 'tokenizer_config.json'), JSON.stringify({ eos_token: '#end#' }));
    mkdirSync(join(folder, 'additional_chat_templates'));
    writeFileSync(
      join(folder, 'additional_chat_templates/tool_use.jinja'),
      '{{ bos_token }}{{ tools | length }} tools',
    );
    await base.registerAdapter('own-template', folder);
    const messages = [{ role: 'user', content: 'hi' }];
    expect(base.renderChat(messages, { adapter: 'own-template' })).toBe('<s>hi#end#');
    expect(base.renderChat(messages, { adapter: 'own-template', tools: [] })).toBe('<s>0 tools');
    expect(base.renderChat(messages)).toBe('<s>user:hi;>');
    const ask = { adapter: 'own-template', maxTokens: 5, ignoreEos: true };
    const byChat = await base.generate({ ...ask, messages, promptLogprobs: 0 }).result;
    const tokens = [0, ...Buffer.from('hi#end#').map((byte) => byte + FIRST_BYTE)];
    expect(byChat.promptLogprobs!.map(({ token }) => token)).toEqual(tokens.slice(1));
    const byTokens = await base.generate({ ...ask, tokens, promptLogprobs: 0 }).result;
    expect([byChat.tokens, byChat.promptLogprobs]).toEqual([byTokens.tokens, byTokens.promptLogprobs]);
    await base.unregisterAdapter('own-template');
  });

  test('break, cancel, dispose and abort end requests; neighbours do not notice', async () => {
    const alone = await ask({ maxTokens: 100 }).result;
    const neighbour = ask({ maxTokens: 100 });
    const long = { maxTokens: 500 };
    const broken = ask(long);
    for await (const _ of broken) break;
    // With an iterator that nobody goes on reading, a request pauses long before it could end by itself.
    const cancelled = ask(long);
    await cancelled[Symbol.asyncIterator]().next();
    cancelled.cancel();
    const controller = new AbortController();
    const aborted = ask({ ...long, signal: controller.signal });
    await aborted[Symbol.asyncIterator]().next();
    controller.abort();
    expect((await broken.result).finishReason).toBe('cancelled');
    expect((await cancelled.result).finishReason).toBe('cancelled');
    expect(await codeOf(aborted.result)).toBe('ERR_ABORTED');
    expect((await neighbour.result).text).toBe(alone.text);
    await base.drain();
    expect(base.stats().queue).toEqual({ waiting: 0, running: 0 });
    expect(base.stats().bytes.kv).toBe(0);
  });

  test('a slow reader is paused and loses nothing', async () => {
    const whole = await ask({ maxTokens: 300 }).result;
    const slow = ask({ maxTokens: 300 });
    const iterator = slow[Symbol.asyncIterator]();
    let text = '';
    for (let step = await iterator.next(); !step.done; step = await iterator.next()) {
      text += step.value.text;
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    expect(text).toBe(whole.text);
  });

  test('unregistering hides the name, lets requests finish, and frees the memory', async () => {
    await base.registerAdapter('gone', files.adapters[0]!);
    const running = ask({ adapter: 'gone', maxTokens: 50 });
    const expected = await ask({ adapter: 'a0', maxTokens: 50 }).result;
    const unregistering = base.unregisterAdapter('gone');
    expect(await codeOf(ask({ adapter: 'gone' }).result)).toBe('ERR_ADAPTER_NOT_FOUND');
    expect((await running.result).text).toBe(expected.text);
    await unregistering;
    await ask().result;
    expect(base.adapters.stats()).toMatchObject({ registered: 4, resident: 4 });
  });

  test('what is refused leaves the others alone', async () => {
    const neighbour = ask({ maxTokens: 40 });
    expect(await codeOf(base.registerAdapter('bad', '/nowhere'))).toBe('ERR_ADAPTER_FILES');
    expect(await codeOf(base.registerAdapter('bad', files.base))).toBe('ERR_ADAPTER_FILES');
    expect(await codeOf(ask({ prompt: 'x'.repeat(600) }).result)).toBe('ERR_CONTEXT_LENGTH');
    expect(await codeOf(ask({ deadlineMs: 1, maxTokens: 400 }).result)).toBe('ERR_DEADLINE');
    expect((await neighbour.result).text).toBe((await ask({ maxTokens: 40 }).result).text);
  });

  test('a queue that is full refuses with ERR_OVERLOADED', async () => {
    await using small = await loadBase({ path: files.base, limits: { maxQueued: 3, deviceMemory: '4MiB' } });
    const results = Array.from({ length: 6 }, () => small.generate({ prompt: 'a', maxTokens: 5 }).result);
    const codes = await Promise.all(results.map(codeOf));
    expect(codes).toEqual([...Array<string>(3).fill('no error'), ...Array<string>(3).fill('ERR_OVERLOADED')]);
  });

  test('counters say what was read', () => {
    const stats = base.stats();
    expect(stats.steps).toBeGreaterThan(0);
    expect(stats.rowsPerStep).toBeGreaterThanOrEqual(1);
    expect(stats.bytes.base).toBeGreaterThan(base.info.parameters);
  });
});

describe.skipIf(noAddon)('a prompt that begins like an earlier one', () => {
  let files: TinyCheckpoint;
  beforeAll(() => {
    files = writeTinyCheckpoint();
  });
  afterAll(() => rmSync(files.root, { recursive: true }));
  const tokens = Array.from({ length: 40 }, (_, i) => 3 + ((i * 7) % 50));

  test('is found by whoever may share it, and its answer stays the same', async () => {
    await using base = await loadBase({ path: files.base, limits: { deviceMemory: '4MiB' } });
    await base.registerAdapter('a', files.adapters[0]!);
    const ask = async (options: { tenant?: string; cacheSalt?: string; adapter?: string } = {}) => {
      const { usage, tokens: answer } = await base.generate({ tokens, maxTokens: 6, ignoreEos: true, ...options })
        .result;
      return { cached: usage.cachedInput, answer };
    };
    const first = await ask();
    expect(first.cached).toBe(0);
    expect(await ask()).toEqual({ ...first, cached: 32 });
    for (const others of [{ tenant: 't' }, { cacheSalt: 's' }, { adapter: 'a' }]) {
      expect((await ask(others)).cached).toBe(0);
      expect((await ask(others)).cached).toBe(32);
    }
    expect((await ask({ tenant: 'u', cacheSalt: 's' })).cached).toBe(32);
    const { prefix, bytes } = base.stats();
    expect(prefix).toEqual({ tokensLookedUp: 9 * 40, tokensFound: 5 * 32 });
    expect(bytes.kv).toBe(0);
    expect(bytes.prefix).toBeGreaterThan(0);
  });

  test('is computed again with prefixCache: false', async () => {
    await using base = await loadBase({ path: files.base, limits: { deviceMemory: '4MiB' }, prefixCache: false });
    for (let i = 0; i < 2; i++) {
      const { usage } = await base.generate({ tokens, maxTokens: 2 }).result;
      expect(usage.cachedInput).toBe(0);
    }
    expect(base.stats().bytes.prefix).toBe(0);
  });
});

describe.skipIf(noAddon)('loading and disposing the real addon', () => {
  let files: TinyCheckpoint;
  beforeAll(() => {
    files = writeTinyCheckpoint();
  });
  afterAll(() => {
    rmSync(files.root, { recursive: true });
    removeDamaged();
  });

  test('several bases at once, and one after the other', async () => {
    const bases = await Promise.all(
      [1, 2, 3].map(() => loadBase({ path: files.base, limits: { deviceMemory: '4MiB' } })),
    );
    const texts = await Promise.all(bases.map((base) => base.generate({ prompt: 'hi', maxTokens: 8 }).text()));
    expect(new Set(texts).size).toBe(1);
    await Promise.all(bases.map((base) => base.dispose()));
  });

  test('disposing ends everything with ERR_CLOSED, whatever runs', async () => {
    const base = await loadBase({ path: files.base });
    await base.registerAdapter('a', files.adapters[0]!);
    const results = Array.from({ length: 20 }, (_, i) => {
      const adapter = i % 2 ? { adapter: 'a' } : {};
      const generation = base.generate({ prompt: 'hi', maxTokens: 400, ignoreEos: true, ...adapter });
      // Read once and no more: it pauses long before it could end by itself.
      generation[Symbol.asyncIterator]()
        .next()
        .catch(() => undefined);
      return generation.result;
    });
    const registering = codeOf(base.registerAdapter('b', files.adapters[1]!));
    await new Promise((resolve) => setTimeout(resolve, 10));
    await base.dispose();
    for (const result of results) expect(await codeOf(result)).toBe('ERR_CLOSED');
    expect(['ERR_CLOSED', 'no error']).toContain(await registering);
    expect(await codeOf(base.generate({ prompt: 'hi' }).result)).toBe('ERR_CLOSED');
  });

  test('an abort in any phase of loading rejects with ERR_ABORTED', async () => {
    for (const phase of ['tokenizer', 'weights', 'pack'] as const) {
      const controller = new AbortController();
      const loading = loadBase({
        path: files.base,
        signal: controller.signal,
        onProgress: (event) => {
          if (event.phase === phase) controller.abort();
        },
      });
      expect(await codeOf(loading.then((base) => base.dispose()))).toBe('ERR_ABORTED');
    }
  });

  test('weights are kept in what config.json names, whatever the files are in, unless the caller says otherwise', async () => {
    const path = patch(copyOf(files.base), 'config.json', { torch_dtype: 'bfloat16' });
    const open = async (dtype?: 'f32' | 'bf16' | 'f16') => {
      await using base = await loadBase({ path, limits: { deviceMemory: '4MiB' }, ...(dtype && { dtype }) });
      return { dtype: base.info.dtype, bytes: base.stats().bytes.base };
    };
    const [f32, bf16, f16] = [await open('f32'), await open('bf16'), await open('f16')];
    expect([f32.dtype, bf16.dtype, f16.dtype]).toEqual(['f32', 'bf16', 'f16']);
    expect(bf16.bytes).toBeLessThan(f32.bytes);
    expect(await open()).toEqual(bf16);
    patch(path, 'config.json', { dtype: 'float32' });
    expect(await open()).toEqual(f32);
  });

  test('the context is what the pool holds; asking for more is ERR_LIMITS', async () => {
    const deviceMemory = '1MiB';
    await using fitted = await loadBase({ path: files.base, limits: { deviceMemory } });
    expect(fitted.info.contextLength).toBeLessThan(SIZES.context);
    const { contextLength } = fitted.info;
    expect(await codeOf(loadBase({ path: files.base, limits: { deviceMemory, maxContext: contextLength + 1 } }))).toBe(
      'ERR_LIMITS',
    );
    await using whole = await loadBase({ path: files.base });
    expect(whole.info.contextLength).toBe(SIZES.context);
    expect(await codeOf(loadBase({ path: '/nowhere' }))).toBe('ERR_BASE_NOT_FOUND');
  });
});
