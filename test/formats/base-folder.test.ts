import { execFileSync } from 'node:child_process';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { readBaseFolder } from '../../src/formats/base-folder.js';
import {
  baseFolder,
  expectCode,
  newFolder,
  safetensors,
  TINY,
  tinyTensors,
  writeFiles,
  type FakeTensors,
} from './fixtures.js';

const QWEN = {
  ...TINY,
  architectures: ['Qwen2ForCausalLM'],
  model_type: 'qwen2',
  sliding_window: 32,
  use_sliding_window: false,
};
const QKV = ['self_attn.q_proj', 'self_attn.k_proj', 'self_attn.v_proj'];
const read = async (...args: Parameters<typeof baseFolder>) => readBaseFolder(await baseFolder(...args));

describe('a base folder', () => {
  test('of Llama becomes a spec, its tensors and its sites', async () => {
    const base = await read({ ...TINY, _name_or_path: 'test/tiny' });
    expect(base.spec).toMatchObject({
      layers: 2,
      hidden: 16,
      heads: 4,
      kvHeads: 2,
      headDim: 4,
      intermediate: 24,
      vocab: 40,
    });
    expect(base.spec).toMatchObject({
      context: 64,
      normEps: 1e-5,
      attentionScale: 0.5,
      embeddingScale: 1,
      isTied: false,
    });
    expect(base).toMatchObject({
      family: 'llama',
      sourceDtype: 'f32',
      eosTokens: [2],
      bosToken: 1,
      nameOrPath: 'test/tiny',
    });
    expect(base.tensors).toHaveLength(Object.keys(tinyTensors()).length);
    expect(base.tensors[0]).toMatchObject({
      role: 'embed_tokens',
      layer: -1,
      rows: 40,
      cols: 16,
      dtype: 'f32',
      bytes: 2560,
    });
    expect(base.tensors.find(({ role, layer }) => role === 'down_proj' && layer === 1)).toMatchObject({
      rows: 16,
      cols: 24,
    });
    expect(base.tensors.find(({ role }) => role === 'final_norm')).toMatchObject({ rows: 1, cols: 16 });
    expect(base.sites.map(({ site }) => site)).toEqual([...Array(7).keys(), 9, 10, 11, 12, 13, 14, 15, 18, 19]);
    expect(base.sites[7]).toEqual({ name: 'model.layers.1.self_attn.q_proj', site: 9, in: 16, out: 16 });
    expect(base.sites.slice(-2)).toEqual([
      { name: 'lm_head', site: 18, in: 16, out: 40 },
      { name: 'model.embed_tokens', site: 19, in: 40, out: 16 },
    ]);
    const elements = Object.values(tinyTensors()).map(({ shape }) =>
      shape.reduce((product, size) => product * size, 1),
    );
    expect(base.parameters).toBe(elements.reduce((sum, size) => sum + size));
  });

  test('of Qwen2 has biases on q, k and v', async () => {
    const base = await read(QWEN, tinyTensors({ biases: QKV }));
    expect(base.family).toBe('qwen2');
    expect(base.tensors.filter(({ role }) => role.endsWith('_bias'))).toHaveLength(6);
    expect(base.tensors.find(({ role }) => role === 'k_proj_bias')).toMatchObject({ layer: 0, rows: 1, cols: 8 });
  });

  test('of Qwen2 has sliding layers where the config says so', async () => {
    const windows = async (change: Record<string, unknown>) =>
      (await read({ ...QWEN, ...change }, tinyTensors({ biases: QKV }))).spec.layerOptions.map(({ window }) => window);
    expect(await windows({})).toEqual([0, 0]);
    expect(await windows({ use_sliding_window: true, max_window_layers: 1 })).toEqual([0, 32]);
    expect(await windows({ use_sliding_window: true, max_window_layers: 2 })).toEqual([0, 0]);
    expect(await windows({ use_sliding_window: true, layer_types: ['sliding_attention', 'full_attention'] })).toEqual([
      32, 0,
    ]);
  });

  test('of Llama with biases has them where the config says so', async () => {
    const tensors = tinyTensors({
      biases: [...QKV, 'self_attn.o_proj', 'mlp.gate_proj', 'mlp.up_proj', 'mlp.down_proj'],
    });
    const base = await read({ ...TINY, attention_bias: true, mlp_bias: true }, tensors);
    expect(base.tensors.filter(({ role }) => role.endsWith('_bias'))).toHaveLength(14);
  });

  test('with tied embeddings needs no head, and may have one of the right shape', async () => {
    const config = { ...TINY, tie_word_embeddings: true };
    const tied = await read(config, tinyTensors({ isTied: true }));
    expect(tied.spec.isTied).toBe(true);
    expect((await read(config, tinyTensors())).tensors).toHaveLength(tied.tensors.length);
    const wrong = { ...tinyTensors(), 'lm_head.weight': { dtype: 'F32', shape: [41, 16] } };
    await expectCode(read(config, wrong), 'ERR_BASE_TENSOR_SHAPE', /lm_head/);
  });

  test('may be sharded', async () => {
    const all = Object.entries(tinyTensors());
    const shards: Record<string, FakeTensors> = {
      'model-00001-of-00002.safetensors': Object.fromEntries(all.slice(0, 9)),
      'model-00002-of-00002.safetensors': Object.fromEntries(all.slice(9)),
    };
    const map = Object.fromEntries(
      Object.entries(shards).flatMap(([file, tensors]) => Object.keys(tensors).map((name) => [name, file])),
    );
    const path = await newFolder();
    const files = Object.fromEntries(Object.entries(shards).map(([name, tensors]) => [name, safetensors(tensors)]));
    await writeFiles(path, {
      'config.json': TINY,
      'model.safetensors.index.json': { metadata: {}, weight_map: map },
      ...files,
    });
    const base = await readBaseFolder(path);
    expect(base.files).toEqual(Object.keys(shards).map((name) => join(path, name)));
    expect(new Set(base.tensors.map(({ file }) => file))).toEqual(new Set([0, 1]));

    const [first] = all[0]!;
    await writeFiles(path, {
      'model.safetensors.index.json': { weight_map: { ...map, [first]: 'model-00002-of-00002.safetensors' } },
    });
    await expectCode(readBaseFolder(path), 'ERR_BASE_INDEX', first);
    await writeFiles(path, {
      'model.safetensors.index.json': { weight_map: { ...map, ghost: 'model-00002-of-00002.safetensors' } },
    });
    await expectCode(readBaseFolder(path), 'ERR_BASE_INDEX', /ghost/);
    await writeFiles(path, {
      'model.safetensors.index.json': { weight_map: { ...map, [first]: '../other.safetensors' } },
    });
    await expectCode(readBaseFolder(path), 'ERR_BASE_INDEX', /\.\.\/other/);
    await writeFiles(path, { 'model.safetensors.index.json': { weight_map: map } });
    await rm(join(path, 'model-00002-of-00002.safetensors'));
    await expectCode(readBaseFolder(path), 'ERR_BASE_FILES', /00002-of-00002/);
  });

  test('reads old and new spellings alike', async () => {
    const { rope_theta: theta, ...rest } = TINY;
    const old = await read({
      ...rest,
      rope_theta: theta,
      rope_scaling: { type: 'linear', factor: 2 },
    });
    const fresh = await read({
      ...rest,
      rope_parameters: { rope_theta: theta, rope_type: 'linear', factor: 2 },
    });
    expect(fresh.spec).toEqual(old.spec);
  });

  test('without architectures goes by its model_type; kv heads default to heads', async () => {
    const { architectures: _a, num_key_value_heads: _k, ...rest } = TINY;
    const tensors = tinyTensors();
    for (const name of Object.keys(tensors))
      if (/[kv]_proj/.test(name)) tensors[name] = { dtype: 'F32', shape: [16, 16] };
    expect((await read(rest, tensors)).spec.kvHeads).toBe(4);
  });

  test('takes sampling defaults and stop tokens from generation_config.json', async () => {
    const generation = {
      do_sample: true,
      temperature: 0.6,
      top_k: 20,
      top_p: 0.95,
      min_p: 0.1,
      repetition_penalty: 1.05,
      eos_token_id: [3, 4, 3],
    };
    const base = await read(TINY, tinyTensors(), { 'generation_config.json': generation });
    expect(base.generation).toEqual({
      doSample: true,
      temperature: 0.6,
      topK: 20,
      topP: 0.95,
      minP: 0.1,
      repetitionPenalty: 1.05,
    });
    expect(base.eosTokens).toEqual([3, 4]);
    expect((await read({ ...TINY, eos_token_id: null })).eosTokens).toEqual([]);
    expect((await read({ ...TINY, bos_token_id: -1 })).bosToken).toBeUndefined();
  });

  test('warns of each setting of generation_config.json that changes answers and is not applied', async () => {
    const warningsOf = async (generation: Record<string, unknown>) =>
      (await read(TINY, tinyTensors(), { 'generation_config.json': generation })).warnings;
    // transformers' `max_length` counts the prompt, too; what bounds an answer here is the request's and the context.
    expect(await warningsOf({ max_length: 20 })).toEqual([]);
    expect((await read(TINY, tinyTensors(), { 'generation_config.json': { max_length: 20 } })).generation).toEqual({});
    const neutral = { num_beams: 1, typical_p: 1, token_healing: false, suppress_tokens: [], bad_words_ids: null };
    expect(await warningsOf({ ...neutral, temperature: 0.5, repetition_penalty: 1.1 })).toEqual([]);
    const changed = { ...neutral, num_beams: 4, suppress_tokens: [5], stop_strings: ['.'], min_new_tokens: 2 };
    expect(await warningsOf(changed)).toEqual(
      ['stop_strings', 'num_beams', 'min_new_tokens', 'suppress_tokens'].map((key) => ({
        code: 'WARN_BASE_GENERATION',
        message: `generation_config.json: ${key} is not supported and not applied`,
      })),
    );
  });

  test('may have the rotary tables that old versions saved', async () => {
    const old = { ...tinyTensors(), 'model.layers.0.self_attn.rotary_emb.inv_freq': { dtype: 'F32', shape: [2] } };
    expect((await read(TINY, old)).tensors).toHaveLength(Object.keys(tinyTensors()).length);
  });

  const mostlyBf16 = { ...tinyTensors({ dtype: 'BF16' }), 'model.norm.weight': { dtype: 'F32', shape: [16] } };

  test('is in the dtype that config.json names, whatever its files are in', async () => {
    const names = { float32: 'f32', float16: 'f16', bfloat16: 'bf16' };
    for (const tensors of [tinyTensors(), tinyTensors({ dtype: 'F16' }), mostlyBf16]) {
      for (const [name, wanted] of Object.entries(names)) {
        for (const spelling of [{ dtype: name }, { torch_dtype: name }, { torch_dtype: `torch.${name}` }])
          expect((await read({ ...TINY, ...spelling }, tensors)).sourceDtype).toBe(wanted);
      }
    }
    // transformers writes the new key, and the old one stays in configs that were edited by hand.
    const both = { dtype: 'float16', torch_dtype: 'float32' };
    expect((await read({ ...TINY, ...both }, mostlyBf16)).sourceDtype).toBe('f16');
    expect((await read({ ...TINY, ...both, dtype: null }, mostlyBf16)).sourceDtype).toBe('f32');
  });

  test('is in the dtype of most of its bytes where config.json names none of these', async () => {
    for (const config of [{}, { dtype: null }, { torch_dtype: 'auto' }, { dtype: 'float64' }, { dtype: ['float32'] }])
      expect((await read({ ...TINY, ...config }, mostlyBf16)).sourceDtype).toBe('bf16');
  });

  test('stops when its signal is aborted', async () => {
    const path = await baseFolder();
    await expectCode(readBaseFolder(path, { signal: AbortSignal.abort() }), 'ERR_ABORTED');
  });
});

describe('a base folder is refused', () => {
  const without = (name: string) => Object.fromEntries(Object.entries(tinyTensors()).filter(([key]) => key !== name));
  const withTensor = (name: string, shape: number[], dtype = 'F32') => ({ ...tinyTensors(), [name]: { dtype, shape } });
  const configs: [string, Record<string, unknown>, string, RegExp][] = [
    [
      'another architecture',
      { architectures: ['MambaForCausalLM'] },
      'ERR_BASE_ARCHITECTURE',
      /Mamba.*LlamaForCausalLM, .*Qwen2ForCausalLM/,
    ],
    [
      'a classifier',
      { architectures: ['LlamaForSequenceClassification'] },
      'ERR_BASE_ARCHITECTURE',
      /LlamaForSequence/,
    ],
    ['no architecture', { architectures: null, model_type: null }, 'ERR_BASE_ARCHITECTURE', /none given/],
    ['quantized weights', { quantization_config: { quant_method: 'gptq', bits: 4 } }, 'ERR_BASE_QUANTIZED', /gptq/],
    ['another activation', { hidden_act: 'gelu' }, 'ERR_BASE_UNSUPPORTED', /gelu.*silu/],
    ['another rope type', { rope_scaling: { rope_type: 'mrope' } }, 'ERR_BASE_ROPE', /mrope/],
    ['no hidden size', { hidden_size: null }, 'ERR_BASE_CONFIG', /hidden_size is missing/],
    ['a hidden size of text', { hidden_size: '16' }, 'ERR_BASE_CONFIG', /hidden_size is "16"/],
    ['a million layers', { num_hidden_layers: 1_000_000 }, 'ERR_BASE_CONFIG', /num_hidden_layers/],
    ['a negative vocabulary', { vocab_size: -1 }, 'ERR_BASE_CONFIG', /vocab_size/],
    ['heads that kv heads do not divide', { num_key_value_heads: 3 }, 'ERR_BASE_CONFIG', /num_key_value_heads/],
    ['a hidden size that heads do not divide', { hidden_size: 18 }, 'ERR_BASE_CONFIG', /hidden_size/],
    ['an odd head', { head_dim: 3 }, 'ERR_BASE_CONFIG', /head_dim/],
    ['a norm epsilon of 0', { rms_norm_eps: 0 }, 'ERR_BASE_CONFIG', /rms_norm_eps/],
    ['a norm epsilon that is 0 in float32', { rms_norm_eps: 1e-90 }, 'ERR_BASE_CONFIG', /rms_norm_eps is 1e-90, not/],
    ['tying that is no boolean', { tie_word_embeddings: 'yes' }, 'ERR_BASE_CONFIG', /tie_word_embeddings/],
  ];
  test.each(configs)('for %s', (_, change, code, text) => expectCode(read({ ...TINY, ...change }), code, text));

  const qwens: [string, Record<string, unknown>, string, RegExp][] = [
    [
      'sliding types without a window',
      { layer_types: ['full_attention', 'sliding_attention'] },
      'ERR_BASE_CONFIG',
      /sliding_window/,
    ],
    ['too few layer types', { layer_types: ['full_attention'] }, 'ERR_BASE_CONFIG', /layer_types .* a list of 2/],
    [
      'other layer types',
      { layer_types: ['full_attention', 'linear_attention'] },
      'ERR_BASE_UNSUPPORTED',
      /linear_attention/,
    ],
    ['three-dimensional positions', { use_mrope: true }, 'ERR_BASE_UNSUPPORTED', /use_mrope/],
  ];
  test.each(qwens)('for %s of Qwen2', (_, change, code, text) =>
    expectCode(read({ ...QWEN, ...change }, tinyTensors({ biases: QKV })), code, text),
  );

  test('for a FIFO in place of a file, which nobody ever writes to', async () => {
    for (const name of ['config.json', 'model.safetensors', 'generation_config.json']) {
      const path = await baseFolder(TINY);
      await rm(join(path, name), { force: true });
      execFileSync('mkfifo', [join(path, name)]);
      await expect(readBaseFolder(path)).rejects.toThrow(/no regular file/);
    }
  });

  const tensors: [string, FakeTensors, string, RegExp][] = [
    [
      'a missing tensor',
      without('model.layers.1.mlp.up_proj.weight'),
      'ERR_BASE_TENSOR_MISSING',
      /layers\.1\.mlp\.up_proj/,
    ],
    ['a missing head', without('lm_head.weight'), 'ERR_BASE_TENSOR_MISSING', /lm_head/],
    [
      'a surplus tensor',
      withTensor('model.layers.0.self_attn.q_norm.weight', [4]),
      'ERR_BASE_TENSOR_SURPLUS',
      /q_norm/,
    ],
    ['a layer too many', tinyTensors({ layers: 3 }), 'ERR_BASE_TENSOR_SURPLUS', /layers\.2/],
    ['a bias that the config denies', tinyTensors({ biases: QKV }), 'ERR_BASE_TENSOR_SURPLUS', /bias/],
    [
      'a transposed tensor',
      withTensor('model.layers.0.mlp.down_proj.weight', [24, 16]),
      'ERR_BASE_TENSOR_SHAPE',
      /\[24, 16\].*\[16, 24\]/,
    ],
    ['a norm with two dimensions', withTensor('model.norm.weight', [1, 16]), 'ERR_BASE_TENSOR_SHAPE', /norm/],
    ['integer weights', withTensor('model.norm.weight', [16], 'U8'), 'ERR_BASE_TENSOR_DTYPE', /U8/],
  ];
  test.each(tensors)('for %s', (_, made, code, text) => expectCode(read(TINY, made), code, text));

  test('for what is not there or not JSON', async () => {
    await expectCode(readBaseFolder('/nowhere/at/all'), 'ERR_BASE_NOT_FOUND', /nowhere/);
    await expectCode(readBaseFolder(await newFolder()), 'ERR_BASE_NOT_FOUND');
    const path = await newFolder();
    await writeFiles(path, { 'config.json': '{"a":' });
    await expectCode(readBaseFolder(path), 'ERR_BASE_CONFIG', /not JSON/);
    await writeFiles(path, { 'config.json': '[]' });
    await expectCode(readBaseFolder(path), 'ERR_BASE_CONFIG', /not a JSON object/);
    await writeFiles(path, { 'config.json': TINY, 'pytorch_model.bin': 'x' });
    await expectCode(readBaseFolder(path), 'ERR_BASE_FILES', /pytorch_model\.bin/);
    await writeFiles(path, { 'config.json': TINY, 'model.safetensors': 'short' });
    await expectCode(readBaseFolder(path), 'ERR_SAFETENSORS_TRUNCATED');
  });
});
