// Names that are registered again while the real engine serves them: every answer is that of the generation that its request
// found, bit for bit, through evictions and with the same prompt.

import { cpSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { loadBase, type Base } from '../../../src/index.js';
import { codeOf } from '../fake-parts.js';
import { noAddon } from './addon.js';
import { FIRST_BYTE, writeTinyCheckpoint, type TinyCheckpoint } from './tiny-checkpoint.js';

const WEIGHTS = 'adapter_model.safetensors';
const ASK = { prompt: 'hello', maxTokens: 24, ignoreEos: true };
/** The same: BOS and bytes. */
const ASK_TOKENS = {
  tokens: [0, ...[...Buffer.from('hello')].map((byte) => byte + FIRST_BYTE)],
  maxTokens: 24,
  ignoreEos: true,
};

describe.skipIf(noAddon)('a name of the real engine that is registered again', () => {
  let files: TinyCheckpoint;
  /** By generation, of each adapter alone. */
  const alone = new Map<string, string>();
  const generations: string[] = [];

  const ask = (base: Base, adapter: string, more: object = {}) => base.generate({ ...ASK, ...more, adapter }).result;
  const inMemory = (folder: string) => ({
    config: JSON.parse(readFileSync(join(folder, 'adapter_config.json'), 'utf8')) as object,
    tensors: readFileSync(join(folder, WEIGHTS)),
  });

  beforeAll(async () => {
    files = writeTinyCheckpoint();
    await using base = await loadBase({ path: files.base, limits: { deviceMemory: '4MiB' } });
    for (const folder of files.adapters) {
      const { generation } = await base.registerAdapter('a', folder);
      generations.push(generation);
      alone.set(generation, (await ask(base, 'a')).text);
    }
  });
  afterAll(() => rmSync(files.root, { recursive: true }));

  test('answers with what each request found', async () => {
    expect(new Set(alone.values()).size).toBe(files.adapters.length);
    await using base = await loadBase({ path: files.base, limits: { deviceMemory: '4MiB' } });
    await base.registerAdapter('a', files.adapters[0]!);
    const answers: ReturnType<typeof ask>[] = [];
    let isOver = false;
    const asking = (async () => {
      while (!isOver) {
        // A prompt of text reaches the engine some turns after its adapter was found, tokens at once.
        answers.push(ask(base, 'a'), base.generate({ ...ASK_TOKENS, adapter: 'a' }).result);
        await new Promise((resolve) => setImmediate(resolve));
        if (answers.length > 200) await answers[answers.length - 200];
      }
    })();
    const seen: string[] = [];
    for (let i = 1; i < 30; i++) {
      const folder = files.adapters[i % files.adapters.length]!;
      const source = i % 3 === 0 ? inMemory(folder) : folder;
      seen.push(
        (await base.registerAdapter('a', source, { expectedGeneration: seen.at(-1) ?? generations[0]! })).generation,
      );
      await answers.at(-1);
    }
    isOver = true;
    await asking;
    const results = await Promise.all(answers);
    for (const { text, adapters } of results) expect(text).toBe(alone.get(adapters[0]!.generation));
    expect(new Set(results.map(({ adapters }) => adapters[0]!.generation)).size).toBe(files.adapters.length);
    await base.unregisterAdapter('a');
    await base.generate(ASK).result;
    expect(base.adapters.stats()).toMatchObject({ registered: 0, resident: 0, bytes: 0 });
  });

  test('does so though no two of its generations fit beside a sequence', async () => {
    await using base = await loadBase({ path: files.base, limits: { deviceMemory: '1MiB', maxContext: 128 } });
    for (let round = 0; round < 12; round++) {
      const i = round % files.adapters.length;
      const { generation } = await base.registerAdapter('a', inMemory(files.adapters[i]!));
      const before = [ask(base, 'a'), ask(base, 'a', { priority: 1 })];
      void base.registerAdapter('a', files.adapters[(i + 1) % files.adapters.length]!).catch(() => undefined);
      for (const { text, adapters } of await Promise.all(before)) {
        expect([text, adapters[0]!.generation]).toEqual([alone.get(generation), generation]);
      }
    }
  });

  test('serves the new files of a folder that was overwritten, and the old name while they are bad', async () => {
    const folder = join(files.root, 'overwritten');
    cpSync(files.adapters[0]!, folder, { recursive: true });
    await using base = await loadBase({ path: files.base, limits: { deviceMemory: '4MiB' } });
    await base.registerAdapter('a', folder);
    await ask(base, 'a');
    writeFileSync(join(folder, WEIGHTS), 'garbage that is no file of tensors');
    expect(await codeOf(base.registerAdapter('a', folder))).toMatch(/^ERR_SAFETENSORS_/);
    expect((await ask(base, 'a')).text).toBe(alone.get(generations[0]!));
    for (const name of readdirSync(folder)) cpSync(join(files.adapters[1]!, name), join(folder, name));
    await base.registerAdapter('a', folder, { expectedGeneration: generations[0]! });
    expect((await ask(base, 'a')).text).toBe(alone.get(generations[1]!));
    // The same content, in files that are others: what is resident may go, and is read from the new ones.
    for (const name of readdirSync(folder)) writeFileSync(join(folder, name), readFileSync(join(folder, name)));
    await base.registerAdapter('a', folder, { expectedGeneration: generations[1]! });
    expect((await ask(base, 'a')).text).toBe(alone.get(generations[1]!));
  });
});
