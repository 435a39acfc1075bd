// The spellings of an adapter's tensor names that are read, and those that are not. What PEFT 0.21.2 and transformers
// 5.23.0 do with each: see the head of src/formats/adapter-names.ts.

import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { beforeAll, describe, expect, test } from 'vitest';
import { describeAdapterFolder, readAdapterFolder } from '../../src/formats/adapter-folder.js';
import { readBaseFolder } from '../../src/formats/base-folder.js';
import type { BaseFolder } from '../../src/formats/types.js';
import { LAYER_SITES } from '../../src/native/binding.js';
import { adapterFolder, baseFolder, expectCode, loraTensors, QV, type FakeTensors } from './fixtures.js';

let base: BaseFolder;
beforeAll(async () => {
  base = await readBaseFolder(await baseFolder());
});

const CONFIG = { target_modules: ['q_proj', 'v_proj', 'embed_tokens'] };
const TENSORS: FakeTensors = {
  ...loraTensors({ ...QV, 'model.embed_tokens': 4 }),
  'base_model.model.model.embed_tokens.base_layer.weight': { dtype: 'F32', shape: [40, 16] },
};
const renamed = (rename: (name: string) => string) =>
  Object.fromEntries(Object.entries(TENSORS).map(([name, tensor]) => [rename(name), tensor]));
const withName = (adapter: string) => (name: string) =>
  name.replace(/\.(lora_[AB])\.weight$/, `.$1.${adapter}.weight`).replace(/(lora_embedding_[AB])$/, `$1.${adapter}`);
const withoutPrefix = (name: string) => name.replace(/^base_model\.model\./, '');
const read = async (tensors: FakeTensors) => readAdapterFolder(await adapterFolder(CONFIG, tensors), base);

describe('an adapter is the same', () => {
  // What no spelling may change; where the bytes lie depends on the length of the names.
  const whatCounts = async (tensors: FakeTensors) => {
    const { spec, info } = await read(tensors);
    const strip = (range: { offset: number; site?: number; role?: string; rows: number; cols: number }) => ({
      ...range,
      offset: 0,
      name: '',
    });
    return { sites: spec.sites, tensors: spec.tensors.map(strip), base: spec.baseTensors.map(strip), info };
  };

  test.each([
    ['without `base_model.model.`', withoutPrefix],
    ['with the adapter name `default` left in', withName('default')],
    ['with another adapter name left in', withName('my-adapter_2')],
    ['without the prefix and with the adapter name', (name: string) => withName('default')(withoutPrefix(name))],
  ])('%s', async (_, rename) => {
    const changed = renamed(rename);
    expect(Object.keys(changed)).not.toEqual(Object.keys(TENSORS));
    expect(await whatCounts(changed)).toEqual(await whatCounts(TENSORS));
    const told = await describeAdapterFolder(await adapterFolder(CONFIG, changed));
    expect(told).toEqual(await describeAdapterFolder(await adapterFolder(CONFIG, TENSORS)));
  });
});

test.each(['shards', 'no-prefix', 'named'])(
  'an adapter has the same values as PEFT saves it, and as libraries save it in %s',
  async (how) => {
    const valuesOf = async (name: string) => {
      const { spec } = await readAdapterFolder(fileURLToPath(new URL(`golden/saved/${name}`, import.meta.url)), base);
      const files = spec.files.map((path) => readFileSync(path));
      return spec.tensors.map(({ site, matrix, file, offset, bytes }) => [
        `${site}${matrix}`,
        files[file]!.toString('hex', offset, offset + bytes),
      ]);
    };
    const values = await valuesOf('one');
    expect(new Set(values.map(([, hex]) => hex)).size).toBe(8);
    expect(await valuesOf(how)).toEqual(values);
  },
);

// Made by make_old_peft.py, which asserts that all versions compute the same with what they saved.
describe('an adapter that PEFT saved', () => {
  const NOW = '0.21.2';
  const folder = new URL('golden/peft/', import.meta.url);
  const namesOf = (version: string) => readdirSync(new URL(version, folder));
  const versions = ['0.4.0', '0.6.2', '0.10.0', '0.14.0'];

  /** All that decides what it computes: sites with ranks and scales, A and B, and the config's canonical text. */
  async function whatCounts(version: string, name: string) {
    const { spec } = await readAdapterFolder(fileURLToPath(new URL(`${version}/${name}`, folder)), base);
    const [file] = spec.files.map((path) => readFileSync(path)) as [Buffer];
    const values = spec.tensors.map(({ site, matrix, rows, cols, offset, bytes }) => {
      return [site, matrix, rows, cols, file.toString('hex', offset, offset + bytes)] as const;
    });
    return { sites: spec.sites, values, config: Buffer.from(spec.canonicalConfig).toString() };
  }

  test.each(versions.flatMap((version) => namesOf(version).map((name) => [version, name] as const)))(
    '%s is the one that it saves now: %s',
    async (version, name) => expect(await whatCounts(version, name)).toEqual(await whatCounts(NOW, name)),
  );

  test('differs from name to name, and has what its name says', async () => {
    expect(namesOf('0.4.0')).toEqual(['embed', 'layers', 'q-v', 'regex']);
    expect(namesOf('0.14.0')).toEqual(namesOf(NOW));
    const of = async (name: string) => {
      const { sites } = await whatCounts(NOW, name);
      return sites.map(({ site, rank, scale }) => [site, rank, scale]);
    };
    expect(await of('layers')).toEqual([1, 5].map((site) => [LAYER_SITES.length + site, 4, 4]));
    expect(await of('patterns')).toEqual(
      [0, 1].flatMap((layer) =>
        [
          [0, 4, 4],
          [3, 2, 3],
        ].map(([site, ...rest]) => [layer * LAYER_SITES.length + site!, ...rest]),
      ),
    );
    expect((await of('rslora')).map(([, , scale]) => scale)).toEqual([8, 8, 8, 8]);
    const whole = await Promise.all(namesOf(NOW).map((name) => whatCounts(NOW, name)));
    expect(new Set(whole.map(({ values }) => JSON.stringify(values))).size).toBe(6);
  });
});

describe('an adapter is refused for', () => {
  const Q0 = 'base_model.model.model.layers.0.self_attn.q_proj';
  const A = TENSORS[`${Q0}.lora_A.weight`]!;
  const whole = (name: string) => name.replace('.weight', '').replace('_layer', '_layer.weight');
  const cases: [string, FakeTensors, RegExp][] = [
    ['a tensor in two spellings', { ...TENSORS, [`${Q0}.lora_A.default.weight`]: A }, /default.*spelled otherwise/],
    ['a tensor with and without prefix', { ...TENSORS, [withoutPrefix(`${Q0}.lora_A.weight`)]: A }, /otherwise/],
    ['two adapters', { ...renamed(withName('a')), ...renamed(withName('b')) }, /lora_A\.b\.weight.*otherwise/],
    ['half of it in another spelling', renamed((name) => (name.includes('lora_A') ? withName('x')(name) : name)), /otherwise/],
    ['an adapter name with a dot', renamed(withName('a.b')), /lora_A\.a\.b\.weight is not a part/],
    ['no `.weight`', renamed((name) => whole(name)), /lora_A is not a part/],
    ['`_orig_mod.` before the base', renamed((name) => name.replace('model.model.', 'model._orig_mod.model.')), /no such module/],
    ['`_orig_mod.` before all', renamed((name) => `_orig_mod.${name}`), /no such module/],
    ['`module.` before all', renamed((name) => `module.${name}`), /no such module/],
    ['`_fsdp_wrapped_module.`', renamed((name) => name.replace('.self', '._fsdp_wrapped_module.self')), /no such module/],
    ['`language_model.`', renamed((name) => name.replace('model.model.', 'model.language_model.model.')), /no such module/],
  ]; // prettier-ignore
  test.each(cases)('%s', (_, tensors, text) => expectCode(read(tensors), 'ERR_ADAPTER_TENSOR_SURPLUS', text));

  test.each([
    ['lora_A.default.bias', 'LORA_BIAS'],
    ['lora_magnitude_vector.default.weight', 'DORA'],
    ['modules_to_save.default.weight', 'MODULES_TO_SAVE'],
  ])('%s, with the adapter name left in', (name, code) =>
    expectCode(read({ ...renamed(withName('default')), [`${Q0}.${name}`]: A }), `ERR_ADAPTER_${code}`),
  );
});
