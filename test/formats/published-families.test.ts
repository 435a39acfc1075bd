// config.json of other families than Llama and Qwen2, in the spelling of the files on the hub (rope_theta at the top, rope_scaling,
// what a layer is derived from patterns). Parameters are the counts that the hub shows; windows and ropes are from the model cards.

import { describe, expect, test } from 'vitest';
import { ConfigReader } from '../../src/formats/config-reader.js';
import { findFamily } from '../../src/formats/families/index.js';
import type { JsonObject } from '../../src/formats/json.js';
import type { LayerSpec, ModelSpec } from '../../src/native/binding.js';
import { basesLike } from '../../src/sdk/known-bases.js';

const each = <T>(layers: number, of: T | ((layer: number) => T)): T[] =>
  Array.from({ length: layers }, (_, layer) => (typeof of === 'function' ? (of as (layer: number) => T)(layer) : of));

/** Factors of LongRoPE, made up: those of the hub are 48 numbers of no pattern. */
const short = each(48, (i) => 1 + i / 64);
const long = each(48, (i) => 1 + i / 2);

const mistral = { architectures: ['MistralForCausalLM'], bos_token_id: 1, eos_token_id: 2, hidden_act: 'silu', initializer_range: 0.02, intermediate_size: 14336, model_type: 'mistral', num_attention_heads: 32, num_key_value_heads: 8, rms_norm_eps: 1e-5, tie_word_embeddings: false, torch_dtype: 'bfloat16', use_cache: true }; // prettier-ignore
const gemma2 = { architectures: ['Gemma2ForCausalLM'], attention_bias: false, attention_dropout: 0.0, attn_logit_softcapping: 50.0, bos_token_id: 2, cache_implementation: 'hybrid', eos_token_id: 1, final_logit_softcapping: 30.0, hidden_act: 'gelu_pytorch_tanh', hidden_activation: 'gelu_pytorch_tanh', initializer_range: 0.02, max_position_embeddings: 8192, model_type: 'gemma2', pad_token_id: 0, rms_norm_eps: 1e-6, rope_theta: 10000.0, sliding_window: 4096, torch_dtype: 'float32', use_cache: true, vocab_size: 256000 }; // prettier-ignore
const gemma3 = { architectures: ['Gemma3ForCausalLM'], attention_bias: false, attention_dropout: 0.0, attn_logit_softcapping: null, bos_token_id: 2, cache_implementation: 'hybrid', eos_token_id: [1, 106], final_logit_softcapping: null, head_dim: 256, hidden_activation: 'gelu_pytorch_tanh', initializer_range: 0.02, model_type: 'gemma3_text', pad_token_id: 0, query_pre_attn_scalar: 256, rms_norm_eps: 1e-6, rope_local_base_freq: 10000, rope_theta: 1000000, sliding_window_pattern: 6, torch_dtype: 'bfloat16', use_cache: true }; // prettier-ignore
const phi3 = { architectures: ['Phi3ForCausalLM'], attention_bias: false, attention_dropout: 0.0, auto_map: { AutoConfig: 'configuration_phi3.Phi3Config' }, embd_pdrop: 0.0, hidden_act: 'silu', initializer_range: 0.02, model_type: 'phi3', resid_pdrop: 0.0, rms_norm_eps: 1e-5, torch_dtype: 'bfloat16', use_cache: true }; // prettier-ignore
const phi3Mini = { ...phi3, bos_token_id: 1, eos_token_id: 32000, hidden_size: 3072, intermediate_size: 8192, num_attention_heads: 32, num_hidden_layers: 32, num_key_value_heads: 32, original_max_position_embeddings: 4096, pad_token_id: 32000, rope_theta: 10000.0, tie_word_embeddings: false, vocab_size: 32064 }; // prettier-ignore
const smollm3 = { architectures: ['SmolLM3ForCausalLM'], attention_bias: false, attention_dropout: 0.0, bos_token_id: null, eos_token_id: 128012, hidden_act: 'silu', hidden_size: 2048, initializer_range: 0.02, intermediate_size: 11008, max_position_embeddings: 65536, max_window_layers: 28, mlp_bias: false, model_type: 'smollm3', no_rope_layer_interval: 4, num_attention_heads: 16, num_hidden_layers: 36, num_key_value_heads: 4, pad_token_id: 128004, pretraining_tp: 2, rms_norm_eps: 1e-6, rope_scaling: null, rope_theta: 5000000.0, sliding_window: null, torch_dtype: 'bfloat16', use_cache: true, use_sliding_window: false, vocab_size: 128256 }; // prettier-ignore

/** Names that `inspectAdapter` gives to a base of these sizes. */
const KNOWN: Record<string, string[]> = {
  'Mistral-7B-v0.1': ['Llama 3 8B', 'Mistral 7B'],
  'Mistral-Nemo-Instruct-2407': ['Mistral Nemo 12B'],
  'Qwen3-0.6B': ['Qwen3 0.6B'],
  'gemma-2-2b': ['Gemma 2 2B'],
  'gemma-2-27b': ['Gemma 2 27B'],
  'gemma-3-1b-it': ['Gemma 3 1B'],
  'the text model of gemma-3-4b': ['Gemma 3 4B'],
  'Phi-3-mini-4k-instruct': ['Phi-3-mini'],
  'Phi-3-mini-128k-instruct as of April 2024': ['Phi-3-mini'],
  'Phi-4-mini-instruct': ['Phi-4-mini'],
  'phi-4': ['Phi-3-medium', 'Phi-4'],
  'SmolLM2-135M': ['SmolLM2 135M'],
  'SmolLM3-3B': ['SmolLM3 3B'],
  'OLMo-2-0425-1B': ['OLMo 2 1B'],
  'granite-3.1-2b-instruct': ['Granite 3 2B'],
};

/** A rotary table: `theta ** (2i / dim)`, times what scales each, inverted. */
interface Rope {
  theta: number;
  dim: number;
  scale?: readonly number[] | number;
  /** LongRoPE. */
  long?: readonly number[];
  /** Of cos and sin. */
  factor?: number;
}

interface Published {
  config: JsonObject;
  parameters: number;
  spec: Partial<ModelSpec>;
  ropes: Rope[];
  /** Default: every layer sees all, rotated by the first table. */
  layers?: LayerSpec[];
}

const LONG_FACTOR = Math.sqrt(1 + Math.log(32) / Math.log(4096)); // of 131,072 positions, trained on 4,096
const slides = (window: number, rope: number): LayerSpec => ({ window, rope });
const full: LayerSpec = { window: 0, rope: 0 };

const published: Record<string, Published> = {
  'Mistral-7B-v0.1': {
    config: { ...mistral, hidden_size: 4096, max_position_embeddings: 32768, num_hidden_layers: 32, rope_theta: 10000.0, sliding_window: 4096, vocab_size: 32000 },
    parameters: 7_241_732_096,
    spec: { context: 32768, isTied: false, headDim: 128 },
    ropes: [{ theta: 1e4, dim: 128 }],
    layers: each(32, slides(4096, 0)),
  },
  'Mistral-Nemo-Instruct-2407': {
    config: { ...mistral, head_dim: 128, hidden_size: 5120, max_position_embeddings: 131072, num_hidden_layers: 40, rope_theta: 1000000.0, sliding_window: null, vocab_size: 131072 },
    parameters: 12_247_782_400,
    spec: { context: 131072, headDim: 128 },
    ropes: [{ theta: 1e6, dim: 128 }],
  },
  'Qwen3-0.6B': {
    config: { architectures: ['Qwen3ForCausalLM'], attention_bias: false, attention_dropout: 0.0, bos_token_id: 151643, eos_token_id: 151645, head_dim: 128, hidden_act: 'silu', hidden_size: 1024, initializer_range: 0.02, intermediate_size: 3072, max_position_embeddings: 40960, max_window_layers: 28, model_type: 'qwen3', num_attention_heads: 16, num_hidden_layers: 28, num_key_value_heads: 8, rms_norm_eps: 1e-6, rope_scaling: null, rope_theta: 1000000, sliding_window: null, tie_word_embeddings: true, torch_dtype: 'bfloat16', use_cache: true, use_sliding_window: false, vocab_size: 151936 },
    parameters: 596_049_920,
    spec: { context: 40960, isTied: true, qkNorm: 'head', headDim: 128 },
    ropes: [{ theta: 1e6, dim: 128 }],
  },
  'gemma-2-2b': {
    config: { ...gemma2, head_dim: 256, hidden_size: 2304, intermediate_size: 9216, num_attention_heads: 8, num_hidden_layers: 26, num_key_value_heads: 4, query_pre_attn_scalar: 256 },
    parameters: 2_614_341_888,
    spec: { context: 8192, isTied: true, attentionSoftCap: 50, logitSoftCap: 30, attentionScale: 1 / 16, embeddingScale: 48 },
    ropes: [{ theta: 1e4, dim: 256 }],
    layers: each(26, (layer) => (layer % 2 === 0 ? slides(4096, 0) : full)),
  },
  'gemma-2-27b': {
    config: { ...gemma2, head_dim: 128, hidden_size: 4608, intermediate_size: 36864, num_attention_heads: 32, num_hidden_layers: 46, num_key_value_heads: 16, query_pre_attn_scalar: 144 },
    parameters: 27_227_128_320,
    spec: { attentionScale: 1 / 12, headDim: 128 },
    ropes: [{ theta: 1e4, dim: 128 }],
    layers: each(46, (layer) => (layer % 2 === 0 ? slides(4096, 0) : full)),
  },
  'gemma-3-1b-it': {
    config: { ...gemma3, hidden_size: 1152, intermediate_size: 6912, max_position_embeddings: 32768, num_attention_heads: 4, num_hidden_layers: 26, num_key_value_heads: 1, rope_scaling: null, sliding_window: 512, vocab_size: 262144 },
    parameters: 999_885_952,
    spec: { context: 32768, isTied: true, attentionSoftCap: 0, logitSoftCap: 0, qkNorm: 'head' },
    ropes: [{ theta: 1e6, dim: 256 }, { theta: 1e4, dim: 256 }],
    layers: each(26, (layer) => (layer % 6 === 5 ? full : slides(512, 1))),
  },
  // 4,300,079,472 less the tower (416,866,032) and the projector (2,950,272) of pictures.
  'the text model of gemma-3-4b': {
    config: { ...gemma3, hidden_size: 2560, intermediate_size: 10240, max_position_embeddings: 131072, num_attention_heads: 8, num_hidden_layers: 34, num_key_value_heads: 4, rope_scaling: { factor: 8.0, rope_type: 'linear' }, sliding_window: 1024, vocab_size: 262208 },
    parameters: 3_880_263_168,
    spec: { context: 131072 },
    ropes: [{ theta: 1e6, dim: 256, scale: 8 }, { theta: 1e4, dim: 256 }],
    layers: each(34, (layer) => (layer % 6 === 5 ? full : slides(1024, 1))),
  },
  'Phi-3-mini-4k-instruct': {
    config: { ...phi3Mini, max_position_embeddings: 4096, rope_scaling: null, sliding_window: 2047 },
    parameters: 3_821_079_552,
    spec: { context: 4096, isFused: true, isTied: false, headDim: 96, ropeSwitch: 0 },
    ropes: [{ theta: 1e4, dim: 96 }],
    layers: each(32, slides(2047, 0)),
  },
  'Phi-3-mini-128k-instruct as of April 2024': {
    config: { ...phi3Mini, max_position_embeddings: 131072, rope_scaling: { long_factor: long, short_factor: short, type: 'su' }, sliding_window: 262144 },
    parameters: 3_821_079_552,
    spec: { context: 131072, ropeSwitch: 4096 },
    ropes: [{ theta: 1e4, dim: 96, scale: short, long, factor: LONG_FACTOR }],
    layers: each(32, slides(262144, 0)),
  },
  'Phi-4-mini-instruct': {
    config: { ...phi3, bos_token_id: 199999, eos_token_id: 199999, full_attn_mod: 1, hidden_size: 3072, intermediate_size: 8192, interpolate_factor: 1, lm_head_bias: false, max_position_embeddings: 131072, mlp_bias: false, num_attention_heads: 24, num_hidden_layers: 32, num_key_value_heads: 8, original_max_position_embeddings: 4096, pad_token_id: 199999, partial_rotary_factor: 0.75, rope_scaling: { long_factor: long, short_factor: short, type: 'longrope' }, rope_theta: 10000.0, sliding_window: 262144, tie_word_embeddings: true, vocab_size: 200064 },
    parameters: 3_836_021_760,
    spec: { context: 131072, isTied: true, headDim: 128, ropeSwitch: 4096 },
    ropes: [{ theta: 1e4, dim: 96, scale: short, long, factor: LONG_FACTOR }],
    layers: each(32, slides(262144, 0)),
  },
  'phi-4': {
    config: { ...phi3, bos_token_id: 100257, eos_token_id: 100265, hidden_size: 5120, intermediate_size: 17920, max_position_embeddings: 16384, num_attention_heads: 40, num_hidden_layers: 40, num_key_value_heads: 10, original_max_position_embeddings: 16384, pad_token_id: 100349, rope_scaling: null, rope_theta: 250000, sliding_window: null, tie_word_embeddings: false, vocab_size: 100352 },
    parameters: 14_659_507_200,
    spec: { context: 16384, isTied: false, headDim: 128 },
    ropes: [{ theta: 250_000, dim: 128 }],
  },
  'SmolLM2-135M': {
    config: { architectures: ['LlamaForCausalLM'], attention_bias: false, attention_dropout: 0.0, bos_token_id: 0, eos_token_id: 0, hidden_act: 'silu', hidden_size: 576, initializer_range: 0.041666666666666664, intermediate_size: 1536, is_llama_config: true, max_position_embeddings: 8192, mlp_bias: false, model_type: 'llama', num_attention_heads: 9, num_hidden_layers: 30, num_key_value_heads: 3, pretraining_tp: 1, rms_norm_eps: 1e-5, rope_interleaved: false, rope_scaling: null, rope_theta: 100000, tie_word_embeddings: true, torch_dtype: 'bfloat16', use_cache: true, vocab_size: 49152 },
    parameters: 134_515_008,
    spec: { context: 8192, isTied: true, headDim: 64 },
    ropes: [{ theta: 1e5, dim: 64 }],
  },
  'SmolLM3-3B': {
    config: { ...smollm3, layer_types: each(36, 'full_attention'), no_rope_layers: each(36, (layer) => (layer % 4 === 3 ? 0 : 1)) },
    parameters: 3_075_098_624,
    spec: { context: 65536, isTied: true },
    ropes: [{ theta: 5e6, dim: 128 }],
    layers: each(36, (layer) => (layer % 4 === 3 ? { window: 0, rope: -1 } : full)),
  },
  'OLMo-2-0425-1B': {
    config: { architectures: ['Olmo2ForCausalLM'], attention_bias: false, attention_dropout: 0.0, eos_token_id: 100257, hidden_act: 'silu', hidden_size: 2048, initializer_range: 0.02, intermediate_size: 8192, max_position_embeddings: 4096, model_type: 'olmo2', num_attention_heads: 16, num_hidden_layers: 16, num_key_value_heads: 16, pad_token_id: 100277, rms_norm_eps: 1e-6, rope_scaling: null, rope_theta: 500000, tie_word_embeddings: false, torch_dtype: 'float32', use_cache: false, vocab_size: 100352 },
    parameters: 1_484_916_736,
    spec: { context: 4096, isTied: false, qkNorm: 'all', hasPreNorms: false },
    ropes: [{ theta: 5e5, dim: 128 }],
  },
  'granite-3.1-2b-instruct': {
    config: { architectures: ['GraniteForCausalLM'], attention_bias: false, attention_dropout: 0.1, attention_multiplier: 0.015625, bos_token_id: 0, embedding_multiplier: 12.0, eos_token_id: 0, hidden_act: 'silu', hidden_size: 2048, initializer_range: 0.02, intermediate_size: 8192, logits_scaling: 8.0, max_position_embeddings: 131072, mlp_bias: false, model_type: 'granite', num_attention_heads: 32, num_hidden_layers: 40, num_key_value_heads: 8, pad_token_id: 0, residual_multiplier: 0.22, rms_norm_eps: 1e-5, rope_scaling: null, rope_theta: 5000000.0, tie_word_embeddings: true, torch_dtype: 'bfloat16', use_cache: true, vocab_size: 49155 },
    parameters: 2_533_531_648,
    spec: { context: 131072, isTied: true, attentionScale: 1 / 64, embeddingScale: 12, residualScale: 0.22, logitScale: 1 / 8 },
    ropes: [{ theta: 5e6, dim: 64 }],
  },
}; // prettier-ignore

function readModel(config: JsonObject) {
  const reader = new ConfigReader(config, 'config.json', 'ERR_BASE_CONFIG');
  return findFamily(reader).read(reader);
}

/** Each rounding to float32 is half an ulp, 2^-24 of the value at most; there are fewer than eight, and powf's own. */
function expectTable(table: Float32Array, { theta, dim, scale = 1 }: Rope): void {
  expect(table).toHaveLength(dim / 2);
  table.forEach((value, i) => {
    const wanted = 1 / (theta ** ((2 * i) / dim) * (typeof scale === 'number' ? scale : scale[i]!));
    expect(Math.abs(value - wanted)).toBeLessThanOrEqual(wanted * 8 * 2 ** -24);
  });
}

describe('published configs in the old spelling', () => {
  test.each(Object.entries(published))('%s', (name, { config, parameters, spec, ropes, layers }) => {
    const model = readModel(config);
    const { hidden, intermediate, kvHeads, headDim } = model.spec;
    const extents = { hidden, intermediate, layers: model.spec.layers, kvWidth: kvHeads * headDim };
    expect(basesLike(extents)).toEqual(KNOWN[name]);
    const sizes = [...model.tensors.values()].map(({ shape }) => shape.reduce((product, size) => product * size, 1));
    expect(sizes.reduce((sum, size) => sum + size)).toBe(parameters);
    expect(model.spec).toMatchObject(spec);
    expect(model.spec.layerOptions).toEqual(layers ?? each(model.spec.layers, full));
    expect(model.spec.ropes).toHaveLength(ropes.length);
    for (const [i, rope] of ropes.entries()) {
      const { invFreq, longInvFreq, factor } = model.spec.ropes[i]!;
      expectTable(invFreq, rope);
      if (rope.long) expectTable(longInvFreq, { ...rope, scale: rope.long });
      else expect(longInvFreq).toHaveLength(0);
      expect(factor).toBeCloseTo(rope.factor ?? 1, 12);
    }
  });

  const layersOf = (config: JsonObject) => readModel(config).spec.layerOptions;

  test('SmolLM3 has a layer of four without positions where no list says which, and where an interval does', () => {
    const listed = published['SmolLM3-3B']!.layers;
    expect(layersOf(smollm3)).toEqual(listed);
    const { no_rope_layer_interval: _, ...bare } = smollm3;
    expect(layersOf(bare)).toEqual(listed);
    expect(layersOf({ ...smollm3, no_rope_layer_interval: 2 }).map(({ rope }) => rope)).toEqual(
      each(36, (layer) => (layer % 2 === 1 ? -1 : 0)),
    );
  });

  test("SmolLM3's layers without positions are those that slide, where windows are on", () => {
    const on = { ...smollm3, use_sliding_window: true, sliding_window: 1024 };
    expect(layersOf(on)).toEqual(each(36, (layer) => (layer % 4 === 3 ? slides(1024, -1) : full)));
  });

  test("Qwen's layers slide from max_window_layers on, where windows are on", () => {
    const { config } = published['Qwen3-0.6B']!;
    const on = { ...config, use_sliding_window: true, sliding_window: 4096, max_window_layers: 21 };
    const wanted = each(28, (layer) => (layer >= 21 ? slides(4096, 0) : full));
    expect(layersOf(on)).toEqual(wanted);
    expect(layersOf({ ...on, architectures: ['Qwen2ForCausalLM'], model_type: 'qwen2' })).toEqual(wanted);
    expect(layersOf({ ...on, use_sliding_window: false })).toEqual(each(28, full));
  });

  test("Gemma 3's pattern says which layers see all", () => {
    const { config } = published['gemma-3-1b-it']!;
    const wanted = each(26, (layer) => (layer % 3 === 2 ? full : slides(512, 1)));
    expect(layersOf({ ...config, sliding_window_pattern: 3 })).toEqual(wanted);
    const { sliding_window_pattern: _, ...bare } = config;
    expect(layersOf(bare)).toEqual(published['gemma-3-1b-it']!.layers);
  });
});
