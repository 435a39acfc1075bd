import { execFile } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { build } from 'esbuild';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { TOKENIZER_WORKER, type TokenizerRequests } from '../../src/formats/tokenizer-protocol.js';
import { WorkerClient } from '../../src/formats/worker-client.js';
import { openTokenizer } from '../../src/formats/tokenizer.js';
import { buildWorkers } from '../support/build-workers.js';

const golden = fileURLToPath(new URL('./golden/', import.meta.url));
const root = fileURLToPath(new URL('../../', import.meta.url));
const coded = (code: string): unknown => expect.objectContaining({ code });
const folders: string[] = [];

/** A folder with these files, objects as JSON. */
function folderOf(files: Record<string, unknown>): string {
  const folder = mkdtempSync(join(tmpdir(), 'openlora-tokenizer-'));
  folders.push(folder);
  for (const [name, content] of Object.entries(files)) {
    writeFileSync(join(folder, name), typeof content === 'string' ? content : JSON.stringify(content));
  }
  return folder;
}

/** The llama2 reference tokenizer with some keys replaced. */
function llama2With(change: Record<string, unknown>): Record<string, unknown> {
  return { ...(JSON.parse(readFileSync(`${golden}llama2/tokenizer.json`, 'utf8')) as object), ...change };
}

beforeAll(buildWorkers);
afterAll(() => folders.forEach((folder) => rmSync(folder, { recursive: true })));

describe('opening', () => {
  test('named chat templates are read from the folder where transformers saves them', async () => {
    const folder = folderOf({ 'tokenizer.json': llama2With({}), 'chat_template.jinja': 'plain' });
    mkdirSync(join(folder, 'additional_chat_templates'));
    writeFileSync(join(folder, 'additional_chat_templates', 'tool_use.jinja'), 'tools');
    const tokenizer = await openTokenizer({ folder });
    const messages = [{ role: 'user', content: 'hi' }];
    expect(tokenizer.renderChat(messages)).toBe('plain');
    expect((await tokenizer.encodeChat(messages, { tools: [] })).text).toBe('tools');
    await tokenizer.dispose();
  });

  test('no tokenizer.json is ERR_TOKENIZER_MISSING', async () => {
    await expect(openTokenizer({ folder: folderOf({}) })).rejects.toEqual(coded('ERR_TOKENIZER_MISSING'));
    await expect(openTokenizer({ folder: '/no/such/folder' })).rejects.toEqual(coded('ERR_TOKENIZER_MISSING'));
  });

  const model = llama2With({}).model as { merges: unknown[] };
  test.each<[string, string, unknown]>([
    ['text that is no JSON', 'the file', '{"model":'],
    ['a list', 'the file', []],
    ['no model', 'model', {}],
    ['WordPiece', 'model.type', llama2With({ model: { ...model, type: 'WordPiece' } })],
    ['Unigram', 'model.type', llama2With({ model: { ...model, type: 'Unigram' } })],
    ['dropout', 'model.dropout', llama2With({ model: { ...model, dropout: 0.1 } })],
    ['no merges', 'model.merges', llama2With({ model: { ...model, merges: undefined } })],
    [
      'a merge of three',
      'model.merges[1]',
      llama2With({ model: { ...model, merges: [model.merges[0], ['a', 'b', 'c']] } }),
    ],
    ['an id that is text', 'model.vocab["a"]', llama2With({ model: { ...model, vocab: { a: 'x' } } })],
    ['a huge id', 'model.vocab["a"]', llama2With({ model: { ...model, vocab: { a: 2 ** 40 } } })],
    ['a nameless added token', 'added_tokens[0].content', llama2With({ added_tokens: [{ id: 1 }] })],
    ['an unknown normalizer', 'normalizer', llama2With({ normalizer: { type: 'Precompiled' } })],
    ['an unknown pre-tokenizer', 'pre_tokenizer', llama2With({ pre_tokenizer: { type: 'BertPreTokenizer' } })],
    ['an unknown post-processor', 'post_processor', llama2With({ post_processor: { type: 'Nope' } })],
    [
      'a pattern that is none',
      'the file',
      llama2With({ normalizer: { type: 'Replace', pattern: { Regex: '(' }, content: '' } }),
    ],
    ['no decoder', 'decoder', llama2With({ decoder: null })],
    ['a WordPiece decoder', 'decoder', llama2With({ decoder: { type: 'WordPiece', prefix: '##' } })],
  ])('%s is ERR_TOKENIZER_UNSUPPORTED, and names %s', async (_, part, tokenizer) => {
    const opening = openTokenizer({ folder: folderOf({ 'tokenizer.json': tokenizer }) });
    await expect(opening).rejects.toEqual(
      expect.objectContaining({ code: 'ERR_TOKENIZER_UNSUPPORTED', details: { part } }),
    );
  });

  test('an aborted signal rejects with ERR_ABORTED, before and while opening', async () => {
    const folder = `${golden}gpt2`;
    await expect(openTokenizer({ folder, signal: AbortSignal.abort() })).rejects.toEqual(coded('ERR_ABORTED'));
    const controller = new AbortController();
    const opening = openTokenizer({ folder, signal: controller.signal });
    controller.abort();
    await expect(opening).rejects.toEqual(coded('ERR_ABORTED'));
  });
});

describe('an open tokenizer', () => {
  test('has one offset more than the model has tokens, and nothing beyond its own', async () => {
    const tokenizer = await openTokenizer({ folder: `${golden}gpt2`, vocabSize: 1000 });
    expect(tokenizer.tokenOffsets.length).toBe(1001);
    expect(tokenizer.tokenOffsets[1000]).toBe(tokenizer.tokenBytes.length);
    expect(tokenizer.decode([999])).toBe('');
    await tokenizer.dispose();
  });

  test('refuses ids that the model does not have, both ways', async () => {
    const tokenizer = await openTokenizer({ folder: `${golden}gpt2`, vocabSize: 300 });
    for (const id of [300, -1, 1.5, NaN]) expect(() => tokenizer.decode([id])).toThrow(coded('ERR_TOKEN_RANGE'));
    await expect(tokenizer.encode('two words')).rejects.toEqual(coded('ERR_TOKEN_RANGE'));
    await tokenizer.dispose();
  });

  test('leaves special tokens out of its table, and keeps the other added ones', async () => {
    const tokenizer = await openTokenizer({ folder: `${golden}llama3` });
    const textOf = (id: number): string =>
      Buffer.from(tokenizer.tokenBytes.subarray(tokenizer.tokenOffsets[id], tokenizer.tokenOffsets[id + 1])).toString();
    const added = new Map(tokenizer.addedTokens.map((token) => [token.content, token]));
    expect(added.get('<s>')).toEqual({ id: 1, content: '<s>', special: true });
    expect(textOf(1)).toBe('');
    expect(textOf(added.get('<tool>')?.id ?? 0)).toBe('<tool>');
    expect(tokenizer.decode([1], { skipSpecialTokens: false })).toBe('<s>');
    await tokenizer.dispose();
  });

  test('never doubles BOS after a template', async () => {
    const files = {
      'tokenizer.json': llama2With({}),
      'tokenizer_config.json': { bos_token: '<s>', chat_template: '{{ bos_token }}{{ messages[0].content }}' },
    };
    const tokenizer = await openTokenizer({ folder: folderOf(files) });
    expect(tokenizer).toMatchObject({ hasChatTemplate: true, bosToken: '<s>', eosToken: undefined });
    const { tokens, text } = await tokenizer.encodeChat([{ role: 'user', content: 'the dog' }]);
    expect(text).toBe('<s>the dog');
    expect(text).toBe(tokenizer.renderChat([{ role: 'user', content: 'the dog' }]));
    expect([...tokens].filter((id) => id === 1)).toHaveLength(1);
    const own = await tokenizer.encodeChat([{ role: 'user', content: 'x' }], { template: 'the dog' });
    expect([...own.tokens]).toEqual([...(await tokenizer.encode('the dog', { addSpecialTokens: false }))]);
    const functions = [{ role: 'user', content: (() => 1) as unknown as string }];
    await expect(tokenizer.encodeChat(functions)).rejects.toEqual(coded('ERR_CHAT_TEMPLATE'));
    expect(() => tokenizer.renderChat(functions)).toThrow(coded('ERR_CHAT_TEMPLATE'));
    const raised = tokenizer.encodeChat([], { template: '{{ raise_exception("no") }}' });
    await expect(raised).rejects.toMatchObject({ code: 'ERR_CHAT_TEMPLATE', message: 'no' });
    await tokenizer.dispose();
  });

  test('takes a lone surrogate for U+FFFD', async () => {
    const tokenizer = await openTokenizer({ folder: `${golden}gpt2` });
    expect(tokenizer.decode(await tokenizer.encode('a\ud83eb'))).toBe('a\ufffdb');
    await tokenizer.dispose();
  });

  test('cuts invalid UTF-8 as WHATWG does, and keeps a byte order mark', async () => {
    const tokenizer = await openTokenizer({ folder: `${golden}gpt2` });
    const fox = [...(await tokenizer.encode('🦊', { addSpecialTokens: false }))];
    expect(tokenizer.decode(fox.slice(0, 2))).toBe('\ufffd');
    expect(tokenizer.decode([...fox.slice(0, 2), ...fox])).toBe('\ufffd🦊');
    expect(tokenizer.decode(await tokenizer.encode('\ufeffa'))).toBe('\ufeffa');
    await tokenizer.dispose();
  });

  test('answers ERR_CLOSED after dispose, to what was under way too; decoding goes on', async () => {
    const tokenizer = await openTokenizer({ folder: `${golden}gpt2` });
    const ids = await tokenizer.encode('the dog');
    const underWay = tokenizer.encode('the dog');
    await Promise.all([expect(underWay).rejects.toEqual(coded('ERR_CLOSED')), tokenizer.dispose()]);
    await expect(tokenizer.encode('x')).rejects.toEqual(coded('ERR_CLOSED'));
    await tokenizer.dispose();
    expect(tokenizer.decode(ids)).toBe('the dog');
  });

  test('drops the answer of an aborted encode', async () => {
    const tokenizer = await openTokenizer({ folder: `${golden}gpt2` });
    const controller = new AbortController();
    const encoding = tokenizer.encode('x'.repeat(10_000), { signal: controller.signal });
    controller.abort(new Error('enough'));
    await expect(encoding).rejects.toMatchObject({ code: 'ERR_ABORTED', cause: { message: 'enough' } });
    expect((await tokenizer.encode('the dog')).length).toBeGreaterThan(1);
    await tokenizer.dispose();
  });
});

describe('the thread', () => {
  const standIn = () =>
    new WorkerClient<TokenizerRequests>(
      TOKENIZER_WORKER,
      { folder: '', vocabSize: undefined },
      new URL('./stand-in-worker.mjs', import.meta.url),
    );

  test('that crashes rejects what it had not answered, and the next request starts another', async () => {
    const client = standIn();
    const ask = (text: string): Promise<unknown> =>
      client.request('encode', { text, addSpecialTokens: true, parseSpecialTokens: true });
    await client.open();
    const first = await ask('who');
    const hanging = ask('hang');
    const crashing = ask('crash');
    await expect(hanging).rejects.toEqual(coded('ERR_TOKENIZER_WORKER'));
    await expect(crashing).rejects.toThrow('crashed as asked');
    expect(await ask('who')).not.toEqual(first);
    await client.close();
  });

  test('hears that nobody waits any more', async () => {
    const client = standIn();
    await client.open();
    const encode = (text: string, signal?: AbortSignal): Promise<Uint32Array> =>
      client.request('encode', { text, addSpecialTokens: true, parseSpecialTokens: true }, signal);
    const controller = new AbortController();
    const hanging = encode('hang', controller.signal);
    controller.abort();
    await expect(hanging).rejects.toEqual(coded('ERR_ABORTED'));
    expect([...(await encode('aborted'))]).toEqual([2]);
    await client.close();
  });

  test('works in a worker thread of the user, and never keeps a process alive', { timeout: 60_000 }, async () => {
    const out = `${root}.cache/lifecycle-${process.pid}`;
    folders.push(out);
    mkdirSync(out, { recursive: true });
    const entryPoints = {
      tokenizer: `${root}src/formats/tokenizer.ts`,
      'tokenizer-worker': `${root}src/formats/tokenizer-worker.ts`,
    };
    await build({ entryPoints, outdir: out, bundle: true, platform: 'node', format: 'esm', packages: 'external' });
    writeFileSync(
      join(out, 'main.js'),
      `import { isMainThread, Worker } from 'node:worker_threads';
       import { openTokenizer } from './tokenizer.js';
       const tokenizer = await openTokenizer({ folder: process.argv[2] ?? ${JSON.stringify(`${golden}gpt2`)} });
       const ids = await tokenizer.encode('the dog');
       console.log(isMainThread ? 'main' : 'worker', tokenizer.decode(ids));
       if (isMainThread) new Worker(new URL(import.meta.url));`,
    );
    const { stdout } = await promisify(execFile)(process.execPath, [join(out, 'main.js')], { timeout: 30_000 });
    expect(stdout.trim().split('\n')).toEqual(['main the dog', 'worker the dog']);
  });
});
