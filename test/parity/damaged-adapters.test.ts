// What only a read of the weights can tell: NaN, Inf, and a saved base tensor that isn't the base's. A neighbour's
// stream must not notice. Needs a built addon: npm run build:native.

import { cpSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { loadBase, type Base } from '../../src/index.js';
import { readSafetensorsHeader } from '../../src/formats/safetensors.js';
import { Pacer } from '../../src/formats/pacer.js';
import { expectCode } from '../formats/fixtures.js';
import { generate, LIMITS } from './compare.js';
import { readReferences } from './references.js';

const set = readReferences().find(({ name }) => name === 'llama-gqa')!;
const reference = set.cases.find(({ adapter }) => adapter === 'r1')!;
const root = mkdtempSync(join(tmpdir(), 'openlora-damaged-'));
afterAll(() => rmSync(root, { recursive: true, force: true }));

let base: Base;
beforeAll(async () => {
  base = await loadBase({ path: set.path, kvDtype: 'f32', limits: LIMITS, threads: 2 });
  await base.registerAdapter('r1', `${set.path}/adapters/r1`);
});
afterAll(() => base?.dispose());

/** A copy of an adapter with one float32 of one tensor replaced. */
async function damaged(adapter: string, tensor: RegExp, at: 'first' | 'last', value: number): Promise<string> {
  const folder = mkdtempSync(join(root, 'adapter-'));
  cpSync(`${set.path}/adapters/${adapter}`, folder, { recursive: true });
  const path = join(folder, 'adapter_model.safetensors');
  const { tensors } = await readSafetensorsHeader(path, new Pacer());
  const found = [...tensors.values()].find(({ name }) => tensor.test(name))!;
  const bytes = readFileSync(path);
  bytes.writeFloatLE(value, at === 'first' ? found.offset : found.offset + found.bytes - 4);
  writeFileSync(path, bytes);
  return folder;
}

describe('an adapter is refused, and a neighbour unharmed,', () => {
  const cases: [string, string, RegExp, 'first' | 'last', number, string][] = [
    ['NaN in A', 'r1', /lora_A/, 'first', NaN, 'ERR_ADAPTER_NOT_FINITE'],
    ['NaN at the end of B', 'r1', /lora_B/, 'last', NaN, 'ERR_ADAPTER_NOT_FINITE'],
    ['Inf in B', 'r1', /lora_B/, 'first', Infinity, 'ERR_ADAPTER_NOT_FINITE'],
    ['-Inf in the embedding', 'head-embed', /lora_embedding_A/, 'last', -Infinity, 'ERR_ADAPTER_NOT_FINITE'],
    [
      'another embedding saved along',
      'head-embed',
      /embed_tokens\.base_layer/,
      'last',
      0.25,
      'ERR_ADAPTER_BASE_TENSOR',
    ],
    ['another head saved along', 'head-embed', /lm_head\.base_layer/, 'first', -1, 'ERR_ADAPTER_BASE_TENSOR'],
  ];
  test.each(cases)('for %s', async (_, adapter, tensor, at, value, code) => {
    const folder = await damaged(adapter, tensor, at, value);
    const neighbour = generate(base, reference);
    await expectCode(base.registerAdapter('damaged', folder), code);
    expect((await neighbour).tokens).toEqual(reference.greedy);
    expect(base.adapters.get('damaged')).toBeUndefined();
  });

  test('for a file that is cut', async () => {
    const folder = await damaged('r1', /lora_A/, 'first', 1);
    truncateSync(join(folder, 'adapter_model.safetensors'), 3000);
    const neighbour = generate(base, reference);
    await expectCode(base.registerAdapter('damaged', folder), 'ERR_SAFETENSORS_TRUNCATED');
    expect((await neighbour).tokens).toEqual(reference.greedy);
  });
});
