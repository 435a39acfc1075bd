// A model that was trained elsewhere: TinyStories, 260,000 parameters (../shared/models/README.md).

import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { loadBase } from '../../src/index.js';

const folder = fileURLToPath(new URL('../../../shared/models/stories260K/', import.meta.url));

test.skipIf(!existsSync(folder))(`tells the story that transformers and llama2.c tell (needs ${folder})`, async () => {
  await using base = await loadBase({ path: `${folder}hf`, limits: { deviceMemory: '16MiB' } });
  const { text, tokens } = await base.generate({ tokens: [1], maxTokens: 199, temperature: 0, ignoreEos: true }).result;
  expect(tokens).toHaveLength(199);
  expect(text.trim()).toBe(readFileSync(`${folder}greedy-200.txt`, 'utf8').trim());
});
