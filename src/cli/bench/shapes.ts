// The shapes of bases that are measured with random weights: a few by name, others from their config.json.

import { readFileSync } from 'node:fs';
import { basename, dirname, resolve } from 'node:path';
import { CliError } from '../errors.js';

export interface Shape {
  name: string;
  layers: number;
  hidden: number;
  heads: number;
  kvHeads: number;
  headDim: number;
  intermediate: number;
  vocab: number;
  /** Positions that the checkpoint is made for. */
  context: number;
  isTied: boolean;
  /** Linear modules with a bias vector. */
  biases: readonly string[];
  /** Each head of q and k is normalised. */
  hasQkNorm: boolean;
  /** config.json. */
  config: Readonly<Record<string, unknown>>;
}

const QWEN = {
  architectures: ['Qwen2ForCausalLM'],
  model_type: 'qwen2',
  vocab_size: 151_936,
  hidden_size: 896,
  intermediate_size: 4864,
  num_hidden_layers: 24,
  num_attention_heads: 14,
  num_key_value_heads: 2,
  max_position_embeddings: 32_768,
  rms_norm_eps: 1e-6,
  rope_theta: 1_000_000,
  hidden_act: 'silu',
  tie_word_embeddings: true,
  use_sliding_window: false,
  eos_token_id: 0,
};
const TINY_LLAMA = {
  architectures: ['LlamaForCausalLM'],
  model_type: 'llama',
  vocab_size: 32_000,
  hidden_size: 2048,
  intermediate_size: 5632,
  num_hidden_layers: 22,
  num_attention_heads: 32,
  num_key_value_heads: 4,
  max_position_embeddings: 2048,
  rms_norm_eps: 1e-5,
  rope_theta: 10_000,
  hidden_act: 'silu',
  tie_word_embeddings: false,
  eos_token_id: 0,
};
/** The base of `openlora demo`. */
const DEMO = {
  ...TINY_LLAMA,
  vocab_size: 260,
  hidden_size: 128,
  intermediate_size: 384,
  num_hidden_layers: 4,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  max_position_embeddings: 256,
  rope_theta: 1000,
};
const CONFIGS = {
  'qwen2.5-0.5b': QWEN,
  tinyllama: TINY_LLAMA,
  demo: DEMO,
  // So small that it says nothing about speed, only whether the bench runs; and a step still takes longer than a thread
  // waits for its turn.
  tiny: {
    ...TINY_LLAMA,
    vocab_size: 2048,
    hidden_size: 256,
    intermediate_size: 512,
    num_hidden_layers: 4,
    num_attention_heads: 4,
    num_key_value_heads: 2,
  },
} as const;

export type ModelName = keyof typeof CONFIGS;
export const MODEL_NAMES = Object.keys(CONFIGS) as ModelName[];

export const namedShape = (name: ModelName): Shape => shapeOf(name, CONFIGS[name]);

/** Throws ERR_BENCH_MODEL, or what the system says. */
export function readShape(path: string): Shape {
  const text = readFileSync(path, 'utf8');
  let config: unknown;
  try {
    config = JSON.parse(text);
  } catch (error) {
    throw refusal(path, `it is no JSON: ${(error as Error).message}`);
  }
  if (typeof config !== 'object' || config === null || Array.isArray(config)) throw refusal(path, 'it is no object');
  return shapeOf(basename(dirname(resolve(path))), config as Record<string, unknown>, path);
}

const FAMILIES = ['llama', 'mistral', 'qwen2', 'qwen3'];
const SIZE_MAX = 2 ** 24;

function shapeOf(name: string, config: Record<string, unknown>, path = name): Shape {
  const size = (key: string, fallback?: number) => {
    const value = config[key] ?? fallback;
    if (typeof value === 'number' && Number.isInteger(value) && value >= 1 && value <= SIZE_MAX) return value;
    throw refusal(path, `${key} is ${JSON.stringify(value)}, wanted an integer from 1 to ${SIZE_MAX}`);
  };
  const family = config.model_type;
  if (typeof family !== 'string' || !FAMILIES.includes(family))
    throw refusal(path, `model_type is ${JSON.stringify(family)}, wanted one of ${FAMILIES.join(', ')}`);
  for (const key of ['mlp_bias', 'quantization_config']) {
    if (config[key]) throw refusal(path, `${key} is set, which random weights aren't written for`);
  }
  const hidden = size('hidden_size');
  const heads = size('num_attention_heads');
  const qkv = ['q_proj', 'k_proj', 'v_proj'];
  const hasBias = family !== 'qwen2' && family !== 'mistral' && config.attention_bias === true;
  return {
    name,
    ...{ hidden, heads, config },
    layers: size('num_hidden_layers'),
    kvHeads: size('num_key_value_heads', heads),
    headDim: size('head_dim', family === 'qwen3' ? 128 : hidden / heads),
    intermediate: size('intermediate_size'),
    vocab: size('vocab_size'),
    context: size('max_position_embeddings'),
    isTied: config.tie_word_embeddings === true,
    biases: family === 'qwen2' ? qkv : hasBias ? [...qkv, 'o_proj'] : [],
    hasQkNorm: family === 'qwen3',
  };
}

const refusal = (path: string, why: string) => new CliError('ERR_BENCH_MODEL', `${path}: ${why}`);

/** [out, in] of a layer's linear modules, below `model.layers.N`. */
export function linearModules(shape: Shape): Record<string, readonly [number, number]> {
  const { hidden, heads, kvHeads, headDim, intermediate } = shape;
  return {
    'self_attn.q_proj': [heads * headDim, hidden],
    'self_attn.k_proj': [kvHeads * headDim, hidden],
    'self_attn.v_proj': [kvHeads * headDim, hidden],
    'self_attn.o_proj': [hidden, heads * headDim],
    'mlp.gate_proj': [intermediate, hidden],
    'mlp.up_proj': [intermediate, hidden],
    'mlp.down_proj': [hidden, intermediate],
  };
}

/** Elements of the layers' linear modules, of the head, and of an adapter of this rank on all linear modules. */
export function weightsOf(shape: Shape, rank: number): { layers: number; head: number; adapter: number } {
  const modules = Object.values(linearModules(shape));
  return {
    layers: shape.layers * modules.reduce((sum, [rows, cols]) => sum + rows * cols, 0),
    head: shape.vocab * shape.hidden,
    adapter: shape.layers * rank * modules.reduce((sum, [rows, cols]) => sum + rows + cols, 0),
  };
}
