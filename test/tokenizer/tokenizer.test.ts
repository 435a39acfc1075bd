import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { openTokenizer, type Tokenizer } from '../../src/formats/tokenizer.js';
import { buildWorkers } from '../support/build-workers.js';

const golden = fileURLToPath(new URL('./golden/', import.meta.url));
const stories = fileURLToPath(new URL('../../../shared/models/stories260K/hf', import.meta.url));
const demo = fileURLToPath(new URL('../../demo/base/', import.meta.url));

interface References {
  cases: { text: string; ids: number[]; plain: number[]; skipped: string; whole: string }[];
  decodes: { ids: number[]; skip: boolean; text: string }[];
}

const folders = ['gpt2', 'prefix-space', 'llama3', 'qwen', 'code', 'llama2', 'gemma', 'metaspace', 'always'].map(
  (name) => ({ name, folder: golden + name, references: `${golden}${name}/references.json`, needs: '' }),
);
folders.push({
  name: 'stories260K',
  folder: stories,
  references: `${golden}stories260K.references.json`,
  needs: ` (needs ${stories})`,
});
// Any other tokenizer: OPENLORA_TOKENIZERS="folder=references.json …", references by make-golden.py.
for (const pair of (process.env.OPENLORA_TOKENIZERS ?? '').split(' ').filter(Boolean)) {
  const [folder = '', references = ''] = pair.split('=');
  folders.push({ name: folder, folder, references, needs: '' });
}

beforeAll(buildWorkers);

for (const { name, folder, references, needs } of folders) {
  describe.skipIf(!existsSync(folder))(`tokenizer ${name}${needs}`, () => {
    let tokenizer: Tokenizer;
    let expected: References;
    beforeAll(async () => {
      expected = JSON.parse(readFileSync(references, 'utf8')) as References;
      tokenizer = await openTokenizer({ folder });
    }, 60_000);
    afterAll(() => tokenizer.dispose());

    test('gives the ids of `tokenizers`', async () => {
      const got = await Promise.all(
        expected.cases.map(async ({ text }) => ({
          text,
          ids: [...(await tokenizer.encode(text))],
          plain: [...(await tokenizer.encode(text, { addSpecialTokens: false }))],
        })),
      );
      expect(got).toEqual(expected.cases.map(({ text, ids, plain }) => ({ text, ids, plain })));
    });

    test('decodes to the text of `tokenizers`', () => {
      for (const { ids, skipped, whole } of expected.cases) {
        expect(tokenizer.decode(ids)).toBe(skipped);
        expect(tokenizer.decode(ids, { skipSpecialTokens: false })).toBe(whole);
      }
      const got = expected.decodes.map(({ ids, skip }) => tokenizer.decode(ids, { skipSpecialTokens: skip }));
      expect(got).toEqual(expected.decodes.map(({ text }) => text));
    });

    test('streams the same text from the token table, but for a space in front', () => {
      const { tokenBytes, tokenOffsets } = tokenizer;
      for (const { ids, skipped } of expected.cases) {
        const bytes = ids.flatMap((id) => [...tokenBytes.subarray(tokenOffsets[id], tokenOffsets[id + 1])]);
        const text = new TextDecoder('utf-8', { ignoreBOM: true }).decode(Uint8Array.from(bytes));
        expect(text.trimStart()).toBe(skipped.trimStart());
      }
    });
  });
}

test.skipIf(!existsSync(`${demo}tokenizer.json`))(
  'the demo base encodes and decodes bytes (needs demo/base)',
  async () => {
    const tokenizer = await openTokenizer({ folder: demo });
    const text = 'orange> Grüße 🦊\n';
    const ids = await tokenizer.encode(text);
    expect(ids.length).toBe(1 + new TextEncoder().encode(text).length);
    expect(tokenizer.decode(ids)).toBe(text);
    await tokenizer.dispose();
  },
);
