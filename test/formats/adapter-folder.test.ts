import { writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { describeAdapterFolder, readAdapterFolder, type AdapterOptions } from '../../src/formats/adapter-folder.js';
import { readBaseFolder } from '../../src/formats/base-folder.js';
import type { BaseFolder } from '../../src/formats/types.js';
import {
  adapterFolder,
  baseFolder,
  expectCode,
  loraTensors,
  LORA_CONFIG,
  newFolder,
  QV,
  safetensors,
  TINY,
  tinyTensors,
  writeFiles,
  type FakeTensors,
} from './fixtures.js';

let base: BaseFolder;
let tied: BaseFolder;
beforeAll(async () => {
  base = await readBaseFolder(await baseFolder({ ...TINY, _name_or_path: 'test/tiny' }));
  tied = await readBaseFolder(
    await baseFolder({ ...TINY, _name_or_path: 'test/tiny', tie_word_embeddings: true }, tinyTensors({ isTied: true })),
  );
});

const read = async (
  config?: Record<string, unknown>,
  tensors?: FakeTensors,
  files?: Record<string, unknown>,
  o?: AdapterOptions,
) => readAdapterFolder(await adapterFolder(config, tensors, files), base, o);
const canonical = async (config: Record<string, unknown>) =>
  Buffer.from((await read(config)).spec.canonicalConfig).toString();
const Q0 = 'base_model.model.model.layers.0.self_attn.q_proj';

describe('an adapter folder', () => {
  test('becomes the spec that the engine gets', async () => {
    const path = await adapterFolder();
    const { spec, info } = await readAdapterFolder(path, base);
    expect(spec.files).toEqual([join(path, 'adapter_model.safetensors')]);
    expect(spec.sites).toEqual([0, 2, 9, 11].map((site) => ({ site, rank: 4, scale: 4 })));
    expect(spec.tensors.map(({ site, matrix }) => `${site}${matrix}`)).toEqual([
      '0A',
      '0B',
      '2A',
      '2B',
      '9A',
      '9B',
      '11A',
      '11B',
    ]);
    expect(spec.tensors[3]).toMatchObject({ file: 0, dtype: 'f32', rows: 8, cols: 4, bytes: 128 });
    expect(spec.baseTensors).toEqual([]);
    expect(info).toMatchObject({ rank: { min: 4, max: 4 }, parameters: 448, bytes: 1792, warnings: [] });
    expect(info.sites).toEqual(Object.keys(QV));
  });

  test.each([
    [{ lora_alpha: 0 }, 0],
    [{ lora_alpha: -8 }, -2],
    [{ lora_alpha: 3, use_rslora: true }, 1.5],
    [{ lora_alpha: 2.5 }, 0.625],
  ])('with %j has the scale %d', async (config, scale) => {
    expect((await read(config)).spec.sites[0]!.scale).toBe(scale);
  });

  test('takes ranks and alphas from patterns', async () => {
    const ranks = { ...QV, 'model.layers.0.self_attn.q_proj': 2, 'model.layers.1.self_attn.v_proj': 7 };
    const config = {
      rank_pattern: { 'layers.0.self_attn.q_proj': 2, '1\\..*v_proj': 7 },
      alpha_pattern: { v_proj: 14 },
    };
    const { spec, info } = await read(config, loraTensors(ranks));
    expect(spec.sites.map(({ rank, scale }) => [rank, scale])).toEqual([
      [2, 8],
      [4, 3.5],
      [4, 4],
      [7, 2],
    ]);
    expect(info.rank).toEqual({ min: 2, max: 7 });
  });

  test.each(['F16', 'BF16'])('may be saved in %s', async (dtype) => {
    expect((await read({}, loraTensors(QV, dtype))).spec.tensors[0]!.dtype).toBe(dtype.toLowerCase());
  });

  test('may act on head and embedding, and brings their base tensors, tied or not', async () => {
    const tensors = {
      ...loraTensors({ lm_head: 3, 'model.embed_tokens': 3 }),
      'base_model.model.lm_head.base_layer.weight': { dtype: 'F32', shape: [40, 16] },
      'base_model.model.model.embed_tokens.base_layer.weight': { dtype: 'F16', shape: [40, 16] },
    };
    const path = await adapterFolder({ target_modules: ['lm_head', 'embed_tokens'], r: 3 }, tensors);
    const { spec } = await readAdapterFolder(path, base);
    expect(spec.sites.map(({ site }) => site)).toEqual([18, 19]);
    expect(spec.tensors.map(({ rows, cols }) => [rows, cols])).toEqual([
      [3, 16],
      [40, 3],
      [3, 40],
      [16, 3],
    ]);
    expect(spec.baseTensors.map(({ role, layer, dtype }) => [role, layer, dtype])).toEqual([
      ['lm_head', -1, 'f32'],
      ['embed_tokens', -1, 'f16'],
    ]);
    const onTied = await readAdapterFolder(path, tied);
    expect(onTied.spec.sites.map(({ site }) => site)).toEqual([18, 19]);
    expect(onTied.spec.baseTensors.map(({ role }) => role)).toEqual(['embed_tokens', 'embed_tokens']);
  });

  test('may bring any other base tensor', async () => {
    const name = `${Q0}.base_layer.weight`;
    const { spec } = await read({}, { ...loraTensors(QV), [name]: { dtype: 'F32', shape: [16, 16] } });
    expect(spec.baseTensors).toEqual([expect.objectContaining({ name, role: 'q_proj', layer: 0, rows: 16, cols: 16 })]);
  });

  test('may have unknown keys that are empty, and settings that only training reads', async () => {
    const harmless = {
      some_new_key: null,
      other_key: false,
      list_key: [],
      map_key: {},
      init_lora_weights: 'gaussian',
      fan_in_fan_out: true,
      eva_config: { rho: 2 },
    };
    expect((await read(harmless)).spec.sites).toHaveLength(4);
    // peft writes null where nobody named the task.
    const unnamed = await read({ task_type: null });
    expect(unnamed.spec.sites).toHaveLength(4);
    expect(unnamed.info.warnings).toEqual([]);
  });

  test('has a canonical config that only what counts can change', async () => {
    const plain = await canonical({});
    expect(plain).toBe(
      '{"alpha_pattern":[],"chat":null,"exclude_modules":[],"layers_pattern":[],"layers_to_transform":null,"lora_alpha":16,"peft_type":"LORA","r":4,"rank_pattern":[],"target_modules":["q_proj","v_proj"],"use_rslora":false}',
    );
    expect(
      await canonical({
        target_modules: ['v_proj', 'q_proj', 'v_proj'],
        lora_dropout: 0,
        peft_version: '0.4',
        lora_alpha: 16.0,
      }),
    ).toBe(plain);
    expect(await canonical({ lora_alpha: 17 })).not.toBe(plain);
    const one = await canonical({ alpha_pattern: { q_proj: 1, '.*proj': 2 } });
    expect(await canonical({ alpha_pattern: { '.*proj': 2, q_proj: 1 } })).not.toBe(one);
  });

  test('for another base is a warning, with strictBase an error', async () => {
    const other = { base_model_name_or_path: 'meta-llama/Llama-2-7b-hf' };
    expect((await read(other)).info.warnings).toEqual([
      { code: 'WARN_ADAPTER_BASE_NAME', message: expect.stringContaining('Llama-2-7b-hf') },
    ]);
    await expectCode(
      read(other, undefined, {}, { strictBase: true }),
      'ERR_ADAPTER_BASE_NAME',
      /Llama-2-7b-hf.*test\/tiny/,
    );
    for (const same of [
      'test/tiny',
      '/data/Tiny',
      `/x/${basename(base.path)}`,
      '/root/.cache/models--test--tiny/snapshots/abc',
      null,
    ]) {
      expect(
        (await read({ base_model_name_or_path: same }, undefined, {}, { strictBase: true })).info.warnings,
      ).toEqual([]);
    }
  });

  test('brings its chat template, which its generation covers', async () => {
    const config = { chat_template: 'from config', other: [1, { a: '}' }], eos_token: { content: '<end>' } };
    const plain = await read();
    expect(plain.info.chat).toBeUndefined();
    const named = {
      chat_template: [
        { name: 'tool_use', template: 'tools' },
        { name: 'default', template: 'yes' },
      ],
    };
    const chatOf = async (files: Record<string, unknown>) => (await read({}, undefined, files)).info.chat;
    expect(await chatOf({ 'tokenizer_config.json': config })).toEqual({
      templates: { default: 'from config' },
      specialTokens: { eos_token: '<end>' },
      extraSpecialTokens: [],
    });
    expect((await chatOf({ 'tokenizer_config.json': named }))!.templates).toEqual({
      default: 'yes',
      tool_use: 'tools',
    });
    const json = { chat_template: 'json' };
    expect((await chatOf({ 'chat_template.json': json }))!.templates).toEqual({ default: 'json' });
    const both = { 'chat_template.json': json, 'tokenizer_config.json': config };
    expect((await chatOf(both))!.templates).toEqual({ default: 'from config' });
    expect(await chatOf({ 'tokenizer_config.json': { eos_token: '<end>' } })).toBeUndefined();
    const files = { 'tokenizer_config.json': config, 'chat_template.jinja': 'from file' };
    const { spec, info } = await read({}, undefined, files);
    expect(info.chat!.templates).toEqual({ default: 'from file' });
    expect(spec.canonicalConfig).not.toEqual(plain.spec.canonicalConfig);
  });

  test('may have the tokenizer of its base', async () => {
    const token = { id: 39, content: '<pad>', special: true };
    const tokenizer = { version: '1.0', added_tokens: [{ ...token, id: 0 }, token], model: { vocab: { x: 1 } } };
    expect(
      (await read({}, undefined, { 'tokenizer.json': tokenizer, 'added_tokens.json': { '<pad>': 39 } })).spec.sites,
    ).toHaveLength(4);
    await expectCode(
      read({}, undefined, { 'tokenizer.json': tokenizer }, { vocabulary: 39 }),
      'ERR_ADAPTER_VOCABULARY',
      /<pad>/,
    );
  });

  test("may add a token over the embedding's rows that its base's tokenizer has, too", async () => {
    const tokenizer = { added_tokens: [{ id: 40, content: '<pad>' }] };
    const own = await readBaseFolder(await baseFolder(TINY, tinyTensors(), { 'tokenizer.json': tokenizer }));
    const path = await adapterFolder({}, loraTensors(QV), { 'tokenizer.json': tokenizer });
    expect((await readAdapterFolder(path, own)).spec.sites).toHaveLength(4);
    const other = { added_tokens: [{ id: 40, content: '<new>' }] };
    await expectCode(
      readAdapterFolder(await adapterFolder({}, loraTensors(QV), { 'tokenizer.json': other }), own),
      'ERR_ADAPTER_VOCABULARY',
      /<new>/,
    );
  });

  test('stops when its signal is aborted', async () => {
    await expectCode(read({}, undefined, {}, { signal: AbortSignal.abort() }), 'ERR_ABORTED');
  });
});

describe('an adapter is refused', () => {
  const configs: [string, Record<string, unknown>, string, RegExp][] = [
    ['another method', { peft_type: 'IA3' }, 'PEFT_TYPE', /IA3.*LORA/],
    ['another task', { task_type: 'SEQ_CLS' }, 'TASK', /SEQ_CLS/],
    ['DoRA', { use_dora: true }, 'DORA', /use_dora/],
    ['bias', { bias: 'lora_only' }, 'BIAS', /lora_only/],
    ['lora_bias', { lora_bias: true }, 'LORA_BIAS', /lora_bias/],
    ['modules_to_save', { modules_to_save: ['lm_head'] }, 'MODULES_TO_SAVE', /modules_to_save/],
    ['trainable tokens', { trainable_token_indices: { embed_tokens: [1] } }, 'TRAINABLE_TOKENS', /trainable_token/],
    ['target_parameters', { target_parameters: ['x'] }, 'TARGET_PARAMETERS', /target_parameters/],
    ['layer_replication', { layer_replication: [[0, 1]] }, 'LAYER_REPLICATION', /layer_replication/],
    ['aLoRA', { alora_invocation_tokens: [1] }, 'ALORA', /alora/],
    ['tied adapters', { ensure_weight_tying: true }, 'WEIGHT_TYING', /ensure_weight_tying/],
    ['QALoRA', { use_qalora: true }, 'VARIANT', /QALoRA/],
    ['BD-LoRA', { use_bdlora: { nblocks: 2 } }, 'VARIANT', /BD-LoRA/],
    ['VeLoRA', { velora_config: { scale: 1 } }, 'VARIANT', /VeLoRA/],
    ['KaSA', { kasa_config: { beta: 1 } }, 'VARIANT', /KaSA/],
    ['Monte Carlo LoRA', { monteclora_config: { num_samples: 8 } }, 'VARIANT', /Monte Carlo/],
    ['Arrow', { arrow_config: { top_k: 3 } }, 'VARIANT', /Arrow/],
    ['Megatron', { megatron_config: { a: 1 } }, 'VARIANT', /Megatron/],
    ...['pissa', 'pissa_niter_16', 'olora', 'corda', 'loftq', 'lora_ga', 'whatever'].map(
      (init): [string, Record<string, unknown>, string, RegExp] => [
        `the initialisation ${init}`,
        { init_lora_weights: init },
        'INIT',
        new RegExp(init),
      ],
    ),
    ['an unknown key that is set', { use_magic: true }, 'UNKNOWN_KEY', /use_magic/],
    ['a rank of 0', { r: 0 }, 'RANK', /r is 0/],
    ['a rank of 257', { r: 257 }, 'RANK', /257/],
    ['half a rank', { r: 1.5 }, 'RANK', /1\.5/],
    ['a rank pattern of 0', { rank_pattern: { q_proj: 0 } }, 'RANK', /q_proj is 0/],
    ['a rank that is text', { r: '8' }, 'CONFIG', /r is "8"/],
    ['an alpha that is text', { lora_alpha: 'x' }, 'CONFIG', /lora_alpha/],
    ['an alpha over float32', { lora_alpha: 1e300 }, 'CONFIG', /lora_alpha/],
    ['an alpha pattern over float32', { alpha_pattern: { q_proj: -1e39 } }, 'CONFIG', /alpha_pattern/],
    ['an alpha pattern that is text', { alpha_pattern: { q_proj: '1' } }, 'CONFIG', /alpha_pattern/],
    ['targets that are numbers', { target_modules: [1] }, 'CONFIG', /target_modules/],
    ['no method', { peft_type: null }, 'CONFIG', /peft_type/],
    ['layers that are text', { layers_to_transform: 'all' }, 'CONFIG', /layers_to_transform/],
  ];
  test.each(configs)('for %s', (_, config, kind, text) => expectCode(read(config), `ERR_ADAPTER_${kind}`, text));

  const changed = (change: (tensors: FakeTensors) => void) => {
    const tensors = loraTensors(QV);
    change(tensors);
    return tensors;
  };
  const add = (name: string, shape: number[], dtype = 'F32') => changed((t) => (t[name] = { dtype, shape }));
  const drop = (...names: string[]) => changed((t) => names.forEach((name) => delete t[name]));
  const tensors: [string, FakeTensors, string, RegExp][] = [
    [
      'missing tensors',
      drop(`${Q0}.lora_A.weight`, `${Q0}.lora_B.weight`),
      'TENSOR_MISSING',
      /layers\.0\.self_attn\.q_proj/,
    ],
    ['A without B', drop(`${Q0}.lora_B.weight`), 'HALF_PAIR', /A without B/],
    ['B without A', drop(`${Q0}.lora_A.weight`), 'HALF_PAIR', /B without A/],
    [
      'a module that the config does not target',
      loraTensors({ ...QV, 'model.layers.0.self_attn.k_proj': 4 }),
      'TENSOR_SURPLUS',
      /k_proj.*does not target/,
    ],
    [
      'a module that the base does not have',
      add('base_model.model.model.visual.lora_A.weight', [4, 16]),
      'TENSOR_SURPLUS',
      /no such module/,
    ],
    ['a tensor that is no LoRA', add('model.foo', [1]), 'TENSOR_SURPLUS', /model\.foo/],
    ["another adapter's name", add(`${Q0}.lora_A.default.weight`, [4, 16]), 'TENSOR_SURPLUS', /default/],
    [
      'an embedding saved as a linear layer',
      add('base_model.model.model.embed_tokens.lora_A.weight', [4, 40]),
      'TENSOR_SURPLUS',
      /embed_tokens/,
    ],
    [
      'a layer outside the base',
      add('base_model.model.model.layers.2.self_attn.q_proj.lora_A.weight', [4, 16]),
      'LAYER',
      /layer 2/,
    ],
    ["DoRA's tensors", add(`${Q0}.lora_magnitude_vector`, [16]), 'DORA', /magnitude/],
    ['a bias', add(`${Q0}.bias`, [16]), 'BIAS', /bias/],
    ['a bias of lora_B', add(`${Q0}.lora_B.bias`, [16]), 'LORA_BIAS', /lora_B\.bias/],
    [
      'a saved module',
      add('base_model.model.lm_head.modules_to_save.weight', [40, 16]),
      'MODULES_TO_SAVE',
      /modules_to_save/,
    ],
    [
      'trained tokens',
      add('base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta', [1, 16]),
      'TRAINABLE_TOKENS',
      /token/,
    ],
    ['another rank in A', add(`${Q0}.lora_A.weight`, [5, 16]), 'RANK', /\[5, 16\].*rank 4/],
    ['another rank in B', add(`${Q0}.lora_B.weight`, [16, 5]), 'RANK', /\[16, 5\].*rank 4/],
    ['a wrong width', add(`${Q0}.lora_A.weight`, [4, 17]), 'SHAPE', /\[4, 17\].*\[4, 16\]/],
    ['a transposed B', add(`${Q0}.lora_B.weight`, [4, 16]), 'SHAPE', /\[4, 16\].*\[16, 4\]/],
    ['three dimensions', add(`${Q0}.lora_A.weight`, [4, 16, 1]), 'SHAPE', /\[4, 16, 1\]/],
    ['integers', add(`${Q0}.lora_A.weight`, [4, 16], 'U8'), 'DTYPE', /U8/],
    [
      'a base tensor of another shape',
      add('base_model.model.model.embed_tokens.weight', [42, 16]),
      'BASE_TENSOR',
      /\[42, 16\].*\[40, 16\]/,
    ],
    ['a bias that the base does not have', add(`${Q0}.base_layer.bias`, [16]), 'BASE_TENSOR', /no such tensor/],
  ];
  test.each(tensors)('for %s', (_, made, kind, text) => expectCode(read({}, made), `ERR_ADAPTER_${kind}`, text));

  test.each([
    ['tokenizer.json', { added_tokens: [{ id: 40, content: '<new>' }] }],
    ['added_tokens.json', { '<new>': 40 }],
  ])('for tokens that its %s adds', (name, content) =>
    expectCode(read({}, undefined, { [name]: content }), 'ERR_ADAPTER_VOCABULARY', /<new>.*40/),
  );

  const lists = ['[nul]', '[1,]', '[,1]', '[1] 2', '1 [2]'].map((list) => `{"added_tokens": ${list}}`);
  test.each(['{"added_tokens": [', '[]', '{"added_tokens": 3}', 'x', ...lists])('for the tokenizer %s', (content) =>
    expectCode(read({}, undefined, { 'tokenizer.json': content }), 'ERR_ADAPTER_TOKENIZER'),
  );

  test('for the last of many added tokens, read item by item over many reads', () => {
    const tokens = Array.from({ length: 6000 }, (_, id) => ({ id: id % 40, content: `a], "${id}`, more: [[id], {}] }));
    const tokenizer = { model: [[]], added_tokens: [...tokens, { id: 41, content: '<last>' }] };
    return expectCode(read({}, undefined, { 'tokenizer.json': tokenizer }), 'ERR_ADAPTER_VOCABULARY', /<last>.*41/);
  });

  test('for configs and items so large that parsing them would hold the JS thread', async () => {
    const many = Array.from({ length: 20_000 }, (_, i) => `module${i}`);
    await expectCode(read({ target_modules: many }), 'ERR_ADAPTER_CONFIG', /\d+ values, more than 8192/);
    await expectCode(read({ revision: 'x'.repeat(1 << 20) }), 'ERR_ADAPTER_CONFIG', /bytes, more than 1048576/);
    const tokenizer = { added_tokens: [{ id: 1, content: 'x'.repeat(70_000) }] };
    await expectCode(read({}, undefined, { 'tokenizer.json': tokenizer }), 'ERR_ADAPTER_TOKENIZER', /65536 bytes/);
  });

  test('for files that are not there, are no JSON, or could run code', async () => {
    await expectCode(readAdapterFolder('/nowhere', base), 'ERR_ADAPTER_FILES', /nowhere/);
    const path = await newFolder();
    await expectCode(readAdapterFolder(path, base), 'ERR_ADAPTER_FILES', /adapter_config\.json/);
    await writeFiles(path, { 'adapter_config.json': LORA_CONFIG });
    await expectCode(readAdapterFolder(path, base), 'ERR_ADAPTER_FILES', /adapter_model\.safetensors/);
    await writeFiles(path, { 'adapter_model.bin': 'x' });
    await expectCode(readAdapterFolder(path, base), 'ERR_ADAPTER_BIN', /adapter_model\.bin/);
    await writeFile(join(path, 'adapter_model.safetensors'), safetensors(loraTensors(QV)).subarray(0, -1));
    await expectCode(readAdapterFolder(path, base), 'ERR_SAFETENSORS_TRUNCATED');
    await writeFiles(path, { 'adapter_config.json': '{"r": NaN}' });
    await expectCode(readAdapterFolder(path, base), 'ERR_ADAPTER_CONFIG', /not JSON/);
  });
});

describe('an adapter without a base', () => {
  test('is described from its files alone', async () => {
    const tensors = loraTensors({ lm_head: 2, 'model.layers.1.mlp.up_proj': 6, 'model.layers.0.self_attn.v_proj': 4 });
    const told = await describeAdapterFolder(await adapterFolder({ target_modules: 'all-linear' }, tensors));
    expect(told).toMatchObject({ rank: { min: 2, max: 6 }, baseNameOrPath: 'test/tiny', parameters: 448, bytes: 1792 });
    expect(told.sites).toEqual(['model.layers.0.self_attn.v_proj', 'model.layers.1.mlp.up_proj', 'lm_head']);
  });

  test('is refused for what no base could fit', async () => {
    await expectCode(describeAdapterFolder(await adapterFolder({ use_dora: true })), 'ERR_ADAPTER_DORA');
    const half = { [`${Q0}.lora_A.weight`]: { dtype: 'F32', shape: [4, 16] } };
    await expectCode(describeAdapterFolder(await adapterFolder({}, half)), 'ERR_ADAPTER_HALF_PAIR');
    await expectCode(describeAdapterFolder(await adapterFolder({}, {})), 'ERR_ADAPTER_TENSOR_MISSING');
  });
});
