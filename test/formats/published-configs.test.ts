// config.json of checkpoints that people use, as published; what must come of them is from their model cards.

import { describe, expect, test } from 'vitest';
import { ConfigReader } from '../../src/formats/config-reader.js';
import { findFamily } from '../../src/formats/families/index.js';
import { basesLike } from '../../src/sdk/known-bases.js';

const llama = {
  architectures: ['LlamaForCausalLM'],
  attention_bias: false,
  attention_dropout: 0.0,
  hidden_act: 'silu',
  initializer_range: 0.02,
  model_type: 'llama',
  pretraining_tp: 1,
  rms_norm_eps: 1e-5,
  use_cache: true,
};
const qwen = {
  architectures: ['Qwen2ForCausalLM'],
  attention_dropout: 0.0,
  hidden_act: 'silu',
  initializer_range: 0.02,
  model_type: 'qwen2',
  rms_norm_eps: 1e-6,
  rope_theta: 1000000.0,
  torch_dtype: 'bfloat16',
  use_cache: true,
  use_sliding_window: false,
};

const published: [string, Record<string, unknown>, Record<string, unknown>, number][] = [
  [
    'Llama-2-7b-hf',
    {
      ...llama,
      hidden_size: 4096,
      intermediate_size: 11008,
      max_position_embeddings: 4096,
      num_attention_heads: 32,
      num_hidden_layers: 32,
      num_key_value_heads: 32,
      rope_scaling: null,
      tie_word_embeddings: false,
      torch_dtype: 'float16',
      vocab_size: 32000,
    },
    { layers: 32, kvHeads: 32, headDim: 128, context: 4096, isTied: false },
    6_738_415_616,
  ],
  [
    'Llama-3.2-1B',
    {
      ...llama,
      head_dim: 64,
      hidden_size: 2048,
      intermediate_size: 8192,
      max_position_embeddings: 131072,
      mlp_bias: false,
      num_attention_heads: 32,
      num_hidden_layers: 16,
      num_key_value_heads: 8,
      rope_scaling: {
        factor: 32.0,
        high_freq_factor: 4.0,
        low_freq_factor: 1.0,
        original_max_position_embeddings: 8192,
        rope_type: 'llama3',
      },
      rope_theta: 500000.0,
      tie_word_embeddings: true,
      torch_dtype: 'bfloat16',
      vocab_size: 128256,
    },
    { layers: 16, kvHeads: 8, headDim: 64, context: 131072, isTied: true },
    1_235_814_400,
  ],
  [
    'Qwen2.5-0.5B-Instruct',
    {
      ...qwen,
      hidden_size: 896,
      intermediate_size: 4864,
      max_position_embeddings: 32768,
      max_window_layers: 21,
      num_attention_heads: 14,
      num_hidden_layers: 24,
      num_key_value_heads: 2,
      sliding_window: 32768,
      tie_word_embeddings: true,
      vocab_size: 151936,
    },
    { layers: 24, kvHeads: 2, headDim: 64, context: 32768, isTied: true },
    494_032_768,
  ],
  [
    'Qwen2.5-7B-Instruct with the YaRN of its model card',
    {
      ...qwen,
      hidden_size: 3584,
      intermediate_size: 18944,
      max_position_embeddings: 32768,
      max_window_layers: 28,
      num_attention_heads: 28,
      num_hidden_layers: 28,
      num_key_value_heads: 4,
      rope_scaling: { factor: 4.0, original_max_position_embeddings: 32768, type: 'yarn' },
      sliding_window: 131072,
      tie_word_embeddings: false,
      vocab_size: 152064,
    },
    {
      layers: 28,
      kvHeads: 4,
      headDim: 128,
      context: 131072,
      isTied: false,
      ropes: [{ factor: 0.1 * Math.log(4) + 1 }],
    },
    7_615_616_512,
  ],
];

describe('published configs', () => {
  test.each(published)('%s is read', (_, config, spec, parameters) => {
    const reader = new ConfigReader(config, 'config.json', 'ERR_BASE_CONFIG');
    const model = findFamily(reader).read(reader);
    expect(model.spec).toMatchObject(spec);
    const sizes = [...model.tensors.values()].map(({ shape }) => shape.reduce((product, size) => product * size, 1));
    expect(sizes.reduce((sum, size) => sum + size)).toBe(parameters);
  });

  // Of the names that `inspectAdapter` gives to a base whose sizes an adapter tells.
  test.each([
    ['Llama-2-7b-hf', ['Llama 2 7B', 'OLMo 2 7B']],
    ['Llama-3.2-1B', ['Llama 3.2 1B']],
    ['Qwen2.5-0.5B-Instruct', ['Qwen2.5 0.5B']],
  ])('%s has the sizes that are known of %j', (name, known) => {
    const config = published.find(([published]) => published === name)![1];
    const reader = new ConfigReader(config, 'config.json', 'ERR_BASE_CONFIG');
    const { layers, hidden, intermediate, kvHeads, headDim } = findFamily(reader).read(reader).spec;
    expect(basesLike({ layers, hidden, intermediate, kvWidth: kvHeads * headDim })).toEqual(known);
    expect(basesLike({ hidden })).toEqual([]);
  });
});
