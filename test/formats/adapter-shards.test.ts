// Adapters in several tensor files, as transformers 5.23.0 writes them (`save_pretrained` of a model with an adapter, and
// `max_shard_size`): PEFT 0.21.2 can't read them back, nor can transformers itself.

import { rm } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { describeAdapterFolder, readAdapterFolder } from '../../src/formats/adapter-folder.js';
import { readBaseFolder } from '../../src/formats/base-folder.js';
import type { BaseFolder } from '../../src/formats/types.js';
import {
  adapterFolder,
  baseFolder,
  expectCode,
  loraTensors,
  newFolder,
  QV,
  safetensors,
  writeFiles,
} from './fixtures.js';
import { LORA_CONFIG } from './fixtures.js';

let base: BaseFolder;
beforeAll(async () => {
  base = await readBaseFolder(await baseFolder());
});

const INDEX = 'model.safetensors.index.json';
const nameOf = (shard: number, count: number) =>
  `adapter_model-${String(shard).padStart(5, '0')}-of-${String(count).padStart(5, '0')}.safetensors`;

/** Cuts the tensors into `count` files, tensor by tensor in turn, and perhaps changes what is written. */
async function sharded(
  count = 2,
  change: (files: Record<string, unknown>, map: Record<string, unknown>) => void = () => {},
  index = INDEX,
): Promise<string> {
  const names = Array.from({ length: count }, (_, i) => nameOf(i + 1, count));
  const tensors = Object.entries(loraTensors(QV));
  const map = Object.fromEntries(tensors.map(([name], i) => [name, names[i % count]]));
  const files: Record<string, unknown> = { 'adapter_config.json': LORA_CONFIG };
  for (const file of names) {
    files[file] = safetensors(Object.fromEntries(tensors.filter(([name]) => map[name] === file)));
  }
  files[index] = { metadata: { total_parameters: 5648, total_size: 1792 }, weight_map: map };
  change(files, map);
  const path = await newFolder();
  await writeFiles(path, files);
  return path;
}

describe('a sharded adapter', () => {
  test.each([[INDEX], ['adapter_model.safetensors.index.json']])('is read by its %s', async (index) => {
    const path = await sharded(3, () => {}, index);
    const { spec, info } = await readAdapterFolder(path, base);
    expect(spec.files).toEqual([1, 2, 3].map((shard) => join(path, nameOf(shard, 3))));
    expect(spec.tensors.map(({ file }) => file)).toEqual([0, 1, 2, 0, 1, 2, 0, 1]);
    const whole = await readAdapterFolder(await adapterFolder(), base);
    expect(spec.sites).toEqual(whole.spec.sites);
    expect(spec.tensors.map(({ rows, cols, bytes }) => [rows, cols, bytes])).toEqual(
      whole.spec.tensors.map(({ rows, cols, bytes }) => [rows, cols, bytes]),
    );
    expect(info).toEqual(whole.info);
    expect(await describeAdapterFolder(path)).toEqual(await describeAdapterFolder(await adapterFolder()));
  });

  test('is passed over for a single file beside it', async () => {
    const path = await sharded(2, (files) => (files['adapter_model.safetensors'] = safetensors(loraTensors(QV))));
    const { spec } = await readAdapterFolder(path, base);
    expect(spec.files.map((file) => basename(file))).toEqual(['adapter_model.safetensors']);
  });

  test('prefers the index of its own name', async () => {
    const path = await sharded(2, (files) => {
      files['adapter_model.safetensors.index.json'] = files[INDEX];
      files[INDEX] = { weight_map: { 'lm_head.weight': 'model-00001-of-00001.safetensors' } };
    });
    expect((await readAdapterFolder(path, base)).spec.files).toHaveLength(2);
  });

  const first = Object.keys(loraTensors(QV))[0]!;
  const cases: [string, Parameters<typeof sharded>[1], string, RegExp][] = [
    ['no index', (files) => delete files[INDEX], 'FILES', /has parts of its tensors, but not adapter_model/],
    ['an index that is no JSON', (files) => (files[INDEX] = '{"weight_map": '), 'INDEX', /not JSON/],
    ['an index without a map', (files) => (files[INDEX] = { metadata: {} }), 'INDEX', /weight_map is not a map/],
    ['a map of numbers', (_, map) => (map[first] = 1), 'INDEX', /weight_map is not a map of file names/],
    ['an empty map', (files) => (files[INDEX] = { weight_map: {} }), 'INDEX', /weight_map is empty/],
    ['a file that is missing', (files) => delete files[nameOf(2, 2)], 'FILES', /names adapter_model-00002.*isn't there/],
    ['a file elsewhere', (_, map) => (map[first] = '../adapter_model.safetensors'), 'INDEX', /not a file beside it/],
    ['a tensor that its file lacks', (_, map) => (map['base_model.model.x.lora_A.weight'] = nameOf(1, 2)), 'INDEX', /which its file lacks/],
    ['a tensor in the wrong file', (_, map) => (map[first] = nameOf(2, 2)), 'INDEX', /is in adapter_model-00001.*its file.*00002/],
    ['a tensor that is not in the map', (_, map) => delete map[first], 'INDEX', /its file in .* is none/],
    ['a tensor in two files', (files) => (files[nameOf(2, 2)] = files[nameOf(1, 2)]), 'INDEX', /is in adapter_model-00002.*00001/],
    ['the index of a base', (files) => (files[INDEX] = { weight_map: { x: 'model-00001-of-00001.safetensors' } }), 'FILES', /isn't there/],
  ]; // prettier-ignore
  test.each(cases)('is refused for %s', async (_, change, code, text) =>
    expectCode(readAdapterFolder(await sharded(2, change), base), `ERR_ADAPTER_${code}`, text),
  );

  test('of more than 64 files is refused', async () => {
    const map = Object.fromEntries(Array.from({ length: 65 }, (_, i) => [`t${i}`, nameOf(i, 64)]));
    const path = await sharded(1, (files) => {
      files[INDEX] = { weight_map: map };
      for (const name of Object.values(map)) files[name] = '';
    });
    await expectCode(readAdapterFolder(path, base), 'ERR_ADAPTER_INDEX', /names 65 files, more than 64/);
  });

  test('that is cut in one of its files is refused', async () => {
    const path = await sharded(2, (files) => {
      files[nameOf(2, 2)] = (files[nameOf(2, 2)] as Buffer).subarray(0, -1);
    });
    await expectCode(readAdapterFolder(path, base), 'ERR_SAFETENSORS_TRUNCATED', /adapter_model-00002/);
    await rm(join(path, nameOf(2, 2)));
    await expectCode(readAdapterFolder(path, base), 'ERR_ADAPTER_FILES');
  });
});
