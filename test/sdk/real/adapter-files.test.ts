// Adapters in memory, in several files and in other spellings, on the real engine: the same generation where the content is
// the same, and the same answers, bit for bit, also after an eviction.

import { createHash } from 'node:crypto';
import {
  cpSync,
  createReadStream,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { loadBase, type Base } from '../../../src/index.js';
import { openFolderReader, readAdapterFolder, readBaseFolder } from '../../../src/formats/index.js';
import { openTokenizer } from '../../../src/formats/tokenizer.js';
import { loadNative } from '../../../src/native/load.js';
import { createLoadBase } from '../../../src/sdk/load-base.js';
import { codeOf } from '../fake-parts.js';
import { noAddon } from './addon.js';
import { removeDamaged, split, withTensors } from './damage.js';
import { writeAdapter, writeTinyCheckpoint, type TinyCheckpoint } from './tiny-checkpoint.js';

const WEIGHTS = 'adapter_model.safetensors';
const ASK = { prompt: 'hello', maxTokens: 24, ignoreEos: true, logprobs: 3 };

describe.skipIf(noAddon)('an adapter', () => {
  let files: TinyCheckpoint;
  let tmp: string;
  const systemTmp = tmpdir();
  beforeAll(() => {
    files = writeTinyCheckpoint();
    tmp = mkdtempSync(join(systemTmp, 'openlora-files-'));
    process.env.TMPDIR = tmp;
  });
  afterAll(() => {
    process.env.TMPDIR = systemTmp;
    rmSync(tmp, { recursive: true });
    rmSync(files.root, { recursive: true });
    removeDamaged();
  });

  const configOf = (folder: string) => JSON.parse(readFileSync(join(folder, 'adapter_config.json'), 'utf8')) as object;
  const bytesOf = (folder: string) => readFileSync(join(folder, WEIGHTS));
  /** Tokens, text and log-probabilities. */
  const answerOf = async (base: Base, adapter: string) => {
    const { tokens, text, logprobs } = await base.generate({ ...ASK, adapter }).result;
    return { tokens, text, logprobs };
  };
  /** A folder with tensors of the same sizes at other places. */
  const withLayersSwapped = (folder: string) => {
    const bytes = bytesOf(folder);
    const end = 8 + Number(bytes.readBigUInt64LE());
    const other: Record<string, string> = { 'layers.0': 'layers.1', 'layers.1': 'layers.0' };
    const header = bytes.toString('latin1', 8, end).replace(/layers\.[01]/g, (layer) => other[layer]!);
    return Buffer.concat([bytes.subarray(0, 8), Buffer.from(header, 'latin1'), bytes.subarray(end)]);
  };
  /** Of a pool in which no two large adapters fit beside a sequence. */
  const openSmall = () => loadBase({ path: files.base, limits: { deviceMemory: '1MiB', maxContext: 128 } });

  test('whose file is replaced by one of the same size after its header was read is refused', async () => {
    const folder = join(files.root, 'replaced');
    cpSync(files.adapters[0]!, folder, { recursive: true });
    const swapped = withLayersSwapped(folder);
    expect(swapped).not.toEqual(bytesOf(folder));
    const load = createLoadBase({
      loadNative,
      openTokenizer,
      openFolderReader: async (path, options) => {
        const reader = await openFolderReader(path, options);
        const readAdapter: typeof reader.readAdapter = async (...args) => {
          const read = await reader.readAdapter(...args);
          writeFileSync(join(folder, WEIGHTS), swapped);
          return read;
        };
        return { ...reader, readAdapter };
      },
    });
    await using base = await load({ path: files.base, limits: { deviceMemory: '16MiB' } });
    await expect(base.registerAdapter('a', folder)).rejects.toMatchObject({
      code: 'ERR_ADAPTER_CHANGED',
      message: expect.stringContaining('another header than when its tensors were found'),
    });
    await base.registerAdapter('a', folder);
  });

  test('in memory or as a stream is of the generation of its folder, and answers as it does', async () => {
    await using base = await loadBase({ path: files.base, limits: { deviceMemory: '16MiB' } });
    for (const [i, folder] of files.adapters.entries()) {
      const config = configOf(folder);
      const of = await base.registerAdapter(`folder-${i}`, folder);
      const inMemory = await base.registerAdapter(`bytes-${i}`, { config, tensors: bytesOf(folder) });
      const streamed = await base.registerAdapter(`stream-${i}`, {
        config,
        tensors: createReadStream(join(folder, WEIGHTS), { highWaterMark: 1000 + i }),
      });
      expect(inMemory).toEqual({ ...of, id: `bytes-${i}` });
      expect(streamed).toEqual({ ...of, id: `stream-${i}` });
      const answer = await answerOf(base, `folder-${i}`);
      expect(await answerOf(base, `bytes-${i}`)).toEqual(answer);
      expect(await answerOf(base, `stream-${i}`)).toEqual(answer);
    }
  });

  test('with a chat template is of the generation of a folder with that template', async () => {
    await using base = await loadBase({ path: files.base, limits: { deviceMemory: '16MiB' } });
    const folder = writeAdapter(join(files.root, 'with-template'), 4, 9);
    const source = { config: configOf(folder), tensors: bytesOf(folder) };
    const plain = await base.registerAdapter('plain', source);
    const chatTemplate = '{{ messages[0].content }}';
    writeFileSync(join(folder, 'chat_template.jinja'), chatTemplate);
    const { generation } = await base.registerAdapter('folder', folder);
    expect(generation).not.toBe(plain.generation);
    expect((await base.registerAdapter('a', { ...source, chatTemplate })).generation).toBe(generation);
    expect((await base.registerAdapter('b', source)).generation).toBe(plain.generation);
  });

  test('in memory is loaded again after an eviction, though its bytes have changed since', async () => {
    await using base = await openSmall();
    const folders = [0, 1, 2, 3].map((i) =>
      writeAdapter(join(files.root, `large-${i}`), 120, 50 + i, ['q_proj', 'lm_head', 'down_proj']),
    );
    for (const [i, folder] of folders.entries()) {
      const tensors = bytesOf(folder);
      await base.registerAdapter(`bytes-${i}`, { config: configOf(folder), tensors });
      tensors.fill(0);
      await base.registerAdapter(`folder-${i}`, folder);
    }
    const first = [];
    for (const i of folders.keys()) first.push(await answerOf(base, `folder-${i}`));
    expect(new Set(first.map(({ text }) => text)).size).toBe(folders.length);
    for (let round = 0; round < 2; round++) {
      for (const i of folders.keys()) expect(await answerOf(base, `bytes-${i}`)).toEqual(first[i]);
    }
    expect(base.adapters.stats().evictions).toBeGreaterThanOrEqual(2 * folders.length - 1);
  });

  test('that is refused leaves no file, for any damage', async () => {
    await using base = await loadBase({ path: files.base, limits: { deviceMemory: '16MiB' } });
    const folder = files.adapters[1]!;
    const config = configOf(folder);
    const good = bytesOf(folder);
    await base.registerAdapter('good', { config, tensors: good });
    const spooled = () =>
      readdirSync(tmp).flatMap((name) => readdirSync(join(tmp, name)).filter((file) => file !== 'owner'));
    expect(spooled()).toHaveLength(1);
    const nan = Buffer.from(good);
    nan.writeFloatLE(NaN, nan.length - 4);
    for (const [tensors, code] of [
      [good.subarray(0, -1), 'ERR_SAFETENSORS_TRUNCATED'],
      [Buffer.concat([good, Buffer.alloc(1)]), 'ERR_SAFETENSORS_RANGE'],
      [Buffer.alloc(0), 'ERR_SAFETENSORS_TRUNCATED'],
      [nan, 'ERR_ADAPTER_NOT_FINITE'],
    ] as const) {
      expect(await codeOf(base.registerAdapter('bad', { config, tensors }))).toBe(code);
      expect(spooled()).toHaveLength(1);
    }
    expect(await codeOf(base.registerAdapter('bad', { config: { ...config, r: 5 }, tensors: good }))).toBe(
      'ERR_ADAPTER_RANK',
    );
    await base.unregisterAdapter('good');
    expect(spooled()).toEqual([]);
  });

  test('in several files is the adapter that it was in one; its generation is over all of them', async () => {
    const folder = files.adapters[2]!;
    const shards = join(files.root, 'sharded');
    mkdirSync(shards);
    const parts = [1, 2, 3].map((i) => `adapter_model-0000${i}-of-00003.safetensors`);
    const names = Object.keys(split(bytesOf(folder)).header);
    const map = Object.fromEntries(names.map((name, i) => [name, parts[i % 3]!]));
    for (const part of parts) {
      const cut = withTensors((tensors) => names.forEach((name) => map[name] === part || delete tensors[name]));
      writeFileSync(join(shards, part), cut(bytesOf(folder)));
    }
    writeFileSync(join(shards, 'adapter_config.json'), JSON.stringify(configOf(folder)));
    writeFileSync(join(shards, 'model.safetensors.index.json'), JSON.stringify({ weight_map: map }));

    await using base = await openSmall();
    await base.registerAdapter('one', folder);
    const { generation } = await base.registerAdapter('three', shards);
    const answer = await answerOf(base, 'one');
    expect(await answerOf(base, 'three')).toEqual(answer);

    const { spec } = await readAdapterFolder(shards, await readBaseFolder(files.base));
    const digest = createHash('sha256').update(spec.canonicalConfig);
    for (const name of parts)
      digest.update(
        createHash('sha256')
          .update(readFileSync(join(shards, name)))
          .digest(),
      );
    expect(generation).toBe(digest.digest('hex'));
  });

  test.each([
    ["without PEFT's prefix", (name: string) => name.replace('base_model.model.', '')],
    ["with the adapter's name in its tensors' names", (name: string) => name.replace('.weight', '.default.weight')],
  ])('%s answers as it does with the usual names', async (_, rename) => {
    const folder = files.adapters[3]!;
    await using base = await loadBase({ path: files.base, limits: { deviceMemory: '16MiB' } });
    await base.registerAdapter('usual', folder);
    const tensors = withTensors((found) => {
      for (const name of Object.keys(found)) {
        found[rename(name)] = found[name]!;
        delete found[name];
      }
    })(bytesOf(folder));
    expect(tensors.length).not.toBe(bytesOf(folder).length);
    await base.registerAdapter('other', { config: configOf(folder), tensors });
    expect(await answerOf(base, 'other')).toEqual(await answerOf(base, 'usual'));
  });
});
