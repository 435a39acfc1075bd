import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import fc from 'fast-check';
import { beforeAll, describe, expect, test } from 'vitest';
import { checkAdapter, readAdapterFolder } from '../../src/formats/adapter-folder.js';
import { readBaseFolder } from '../../src/formats/base-folder.js';
import type { BaseFolder } from '../../src/formats/types.js';
import {
  adapterFolder,
  baseFolder,
  LORA_CONFIG,
  loraTensors,
  newFolder,
  QV,
  safetensors,
  TINY,
  tinyTensors,
  writeFiles,
} from '../formats/fixtures.js';
import { byteChanges, changed, changes, coded, holds, oddValue, withBytes } from './property.js';
import { expectSoundSpec } from './sound.js';

const BASE_REFUSED = /^ERR_(BASE|SAFETENSORS)_[A-Z_]+$/;
const ADAPTER_REFUSED = /^ERR_(ADAPTER|SAFETENSORS)_[A-Z_]+$/;

/** What C++ is given is in range, whatever the config was. */
function expectSound(base: BaseFolder): void {
  const { spec, tensors, generation } = base;
  expectSoundSpec(spec);
  expect(base.eosTokens.every((id) => id >= 0 && id < spec.vocab)).toBe(true);
  expect(tensors.every(({ offset, bytes }) => offset >= 8 && bytes > 0)).toBe(true);
  expect(generation.temperature ?? 0).toSatisfy(Number.isFinite);
}

const SCALINGS = [
  { rope_type: 'linear', factor: 4 },
  { type: 'dynamic', factor: 2.5 },
  { rope_type: 'yarn', factor: 4, original_max_position_embeddings: 32, beta_fast: 32, beta_slow: 1, mscale: 1 },
  { rope_type: 'llama3', factor: 8, low_freq_factor: 1, high_freq_factor: 4, original_max_position_embeddings: 32 },
];
const GENERATION = {
  do_sample: true,
  temperature: 0.6,
  top_k: 20,
  top_p: 0.9,
  min_p: 0.05,
  repetition_penalty: 1.1,
  bos_token_id: 1,
  eos_token_id: [2, 3],
};

describe("a base's folder is read or refused by a code", () => {
  let folder = '';
  beforeAll(async () => {
    folder = await baseFolder();
  });

  test('with any config.json', () =>
    holds(fc.tuple(fc.constantFrom(undefined, ...SCALINGS), changes), async ([scaling, list]) => {
      await writeFiles(folder, { 'config.json': changed({ ...TINY, rope_scaling: scaling }, list) });
      const base = await coded(BASE_REFUSED, () => readBaseFolder(folder));
      if (base) expectSound(base);
      await writeFiles(folder, { 'config.json': TINY });
    }));

  test('with any generation_config.json', () =>
    holds(changes, async (list) => {
      await writeFiles(folder, { 'generation_config.json': changed(GENERATION, list) });
      const base = await coded(BASE_REFUSED, () => readBaseFolder(folder));
      if (base) expectSound(base);
      await writeFiles(folder, { 'generation_config.json': '{}' });
    }));

  test('with any bytes in its JSON files', () =>
    holds(fc.tuple(fc.boolean(), byteChanges), async ([isConfig, bytes]) => {
      const [name, content] = isConfig ? ['config.json', TINY] : ['generation_config.json', GENERATION];
      await writeFiles(folder, { [name]: withBytes(Buffer.from(JSON.stringify(content)), bytes) });
      const base = await coded(BASE_REFUSED, () => readBaseFolder(folder));
      if (base) expectSound(base);
      await writeFiles(folder, { 'config.json': TINY, 'generation_config.json': '{}' });
    }));

  test('with any index, and files that hold something else than it says', async () => {
    const sharded = await newFolder();
    const all = Object.entries(tinyTensors());
    const files = ['a.safetensors', 'b.safetensors'];
    const parts = [all.slice(0, 9), all.slice(9)];
    const map = Object.fromEntries(parts.flatMap((part, i) => part.map(([name]) => [name, files[i]])));
    for (const [i, part] of parts.entries())
      await writeFiles(sharded, { [files[i]!]: safetensors(Object.fromEntries(part)) });
    await writeFiles(sharded, { 'config.json': TINY });
    const readIndex = async (text: string | Buffer) => {
      await writeFiles(sharded, { 'model.safetensors.index.json': text });
      return coded(BASE_REFUSED, () => readBaseFolder(sharded));
    };
    const index = { metadata: { total_size: 1 }, weight_map: map };
    expect((await readIndex(JSON.stringify(index)))?.files).toHaveLength(2);
    await holds(changes, async (list) => {
      const base = await readIndex(changed(index, list));
      if (base) expect(base.files.every((file) => files.some((name) => file === join(sharded, name)))).toBe(true);
    });
    await holds(byteChanges, async (bytes) => {
      await readIndex(withBytes(Buffer.from(JSON.stringify(index)), bytes));
    });
  });
});

describe("an adapter's folder is read or refused by a code", () => {
  let base: BaseFolder;
  let folder = '';
  beforeAll(async () => {
    base = await readBaseFolder(await baseFolder());
    folder = await adapterFolder();
  });

  const configs = [
    LORA_CONFIG,
    { ...LORA_CONFIG, target_modules: '.*\\.(q|v)_proj', rank_pattern: { '.*0.*q_proj': 4 }, use_rslora: true },
    { ...LORA_CONFIG, target_modules: 'all-linear', layers_to_transform: [0, 1], layers_pattern: 'layers' },
    { ...LORA_CONFIG, exclude_modules: ['k_proj'], alpha_pattern: { q_proj: 3, 'layers.1.self_attn.v_proj': 5 } },
  ];

  test('with any adapter_config.json', () =>
    holds(fc.tuple(fc.constantFrom(...configs), changes), async ([config, list]) => {
      await writeFiles(folder, { 'adapter_config.json': changed(config, list) });
      const adapter = await coded(ADAPTER_REFUSED, () => readAdapterFolder(folder, base));
      await writeFiles(folder, { 'adapter_config.json': LORA_CONFIG });
      if (!adapter) return;
      for (const { site, rank, scale } of adapter.spec.sites) {
        expect(base.sites.some((one) => one.site === site)).toBe(true);
        expect(rank).toSatisfy((r: number) => Number.isInteger(r) && r >= 1 && r <= 256);
        expect(Number.isFinite(Math.fround(scale)), `scale ${scale}`).toBe(true);
      }
    }));

  test('with any names and shapes of tensors', () => {
    const name = fc.oneof(
      fc.constantFrom(...Object.keys(loraTensors({ ...QV, lm_head: 4, 'model.embed_tokens': 4 }))),
      fc
        .array(
          fc.constantFrom(
            'base_model',
            'model',
            'layers',
            '0',
            '1',
            '2',
            '999999',
            'q_proj',
            'self_attn',
            'lora_A',
            'lora_B',
          ) ?? '',
          { maxLength: 8 },
        )
        .map((parts) => [...parts, 'weight'].join('.')),
      fc.string({ maxLength: 40 }),
    );
    const tensors = fc.dictionary(
      name.filter((text) => text !== '__metadata__' && text !== '__proto__'),
      fc.record({
        dtype: fc.constantFrom('F32', 'BF16', 'I64'),
        shape: fc.array(fc.nat({ max: 40 }), { maxLength: 3 }),
      }),
      { maxKeys: 3 },
    );
    const lost = fc.array(fc.nat({ max: 7 }), { maxLength: 2 });
    return holds(fc.tuple(tensors, lost), async ([more, without]) => {
      const right = Object.entries(loraTensors(QV)).filter((_, i) => !without.includes(i));
      await writeFiles(folder, { 'adapter_model.safetensors': safetensors({ ...Object.fromEntries(right), ...more }) });
      const adapter = await coded(ADAPTER_REFUSED, () => readAdapterFolder(folder, base));
      await writeFiles(folder, { 'adapter_model.safetensors': safetensors(loraTensors(QV)) });
      if (adapter) expect(adapter.spec.tensors).toHaveLength(2 * adapter.spec.sites.length);
    });
  });

  test('with a config that is no JSON object of a file at all', () =>
    holds(fc.dictionary(fc.constantFrom(...Object.keys(LORA_CONFIG)), oddValue, { maxKeys: 6 }), async (config) => {
      const tensors = join(folder, 'adapter_model.safetensors');
      await coded(ADAPTER_REFUSED, () =>
        checkAdapter({ config: { ...LORA_CONFIG, ...config }, files: [tensors] }, base),
      );
    }));

  describe('with the tokenizer that was saved beside it', () => {
    const tokens = [
      { id: 2, content: '</s>', special: true },
      { id: 40, content: '<pad>', special: true },
    ];
    const files = {
      'tokenizer.json': { version: '1.0', added_tokens: tokens, model: { vocab: { x: 1 } } },
      'added_tokens.json': { '<pad>': 40, '</s>': 2 },
    };
    const names = Object.keys(files) as (keyof typeof files)[];
    let own: BaseFolder;
    let path = '';
    beforeAll(async () => {
      own = await readBaseFolder(await baseFolder(TINY, undefined, { 'tokenizer.json': files['tokenizer.json'] }));
      path = await adapterFolder({}, undefined, files);
      expect((await readAdapterFolder(path, own)).spec.sites).toHaveLength(4);
    });

    /** [content, id] of each token that a file adds. */
    function added(name: string, file: object): unknown[][] {
      if (name === 'added_tokens.json') return Object.entries(file);
      const list = ((file as { added_tokens?: unknown }).added_tokens ?? []) as unknown[];
      return list
        .filter((one) => typeof one === 'object' && one !== null)
        .map((one) => {
          const { content, id } = one as { content?: unknown; id?: unknown };
          return [content, id];
        });
    }

    test('where any value changes: accepted only if the base has every token of no row', () =>
      holds(fc.tuple(fc.constantFrom(...names), changes), async ([name, list]) => {
        const text = changed(files[name], list);
        await writeFiles(path, { [name]: text });
        const adapter = await coded(ADAPTER_REFUSED, () => readAdapterFolder(path, own));
        await writeFiles(path, { [name]: files[name] });
        if (!adapter) return;
        for (const [content, id] of added(name, JSON.parse(text) as object)) {
          if (typeof id === 'number' && id >= own.spec.vocab) expect([content, id]).toEqual(['<pad>', 40]);
        }
      }));

    test('where any bytes change', () =>
      holds(fc.tuple(fc.constantFrom(...names), byteChanges), async ([name, bytes]) => {
        await writeFiles(path, { [name]: withBytes(Buffer.from(JSON.stringify(files[name])), bytes) });
        await coded(ADAPTER_REFUSED, () => readAdapterFolder(path, own));
        await writeFiles(path, { [name]: files[name] });
      }));
  });

  test('with any bytes in its files', () => {
    const names = ['adapter_config.json', 'adapter_model.safetensors'] as const;
    return holds(fc.tuple(fc.constantFrom(...names), byteChanges), async ([name, bytes]) => {
      const whole = await readFile(join(folder, name));
      // In the header, not in the weights.
      await writeFiles(folder, {
        [name]: withBytes(
          whole,
          bytes.map((one) => ({ ...one, at: one.at % 1200 })),
        ),
      });
      await coded(ADAPTER_REFUSED, () => readAdapterFolder(folder, base));
      await writeFiles(folder, { [name]: whole });
    });
  });
});
