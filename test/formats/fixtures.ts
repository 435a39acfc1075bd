// Small folders on disk for the readers' tests, made and damaged on purpose.

import { mkdtempSync, rmSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect } from 'vitest';
import { OpenLoraError } from '../../src/errors.js';

const root = mkdtempSync(join(tmpdir(), 'openlora-formats-'));
afterAll(() => rmSync(root, { recursive: true, force: true }));
let folders = 0;

export async function newFolder(name = `folder-${++folders}`): Promise<string> {
  const path = join(root, name);
  await mkdir(path, { recursive: true });
  return path;
}

export interface FakeTensor {
  dtype: string;
  shape: number[];
}
export type FakeTensors = Record<string, FakeTensor>;

const BYTES: Record<string, number> = { F32: 4, F16: 2, BF16: 2, I64: 8, U8: 1 };

/** A safetensors file of zeros. `header` may be changed before it is written. */
export function safetensors(
  tensors: FakeTensors,
  change: (header: Record<string, unknown>) => void = () => {},
): Buffer {
  const header: Record<string, unknown> = { __metadata__: { format: 'pt' } };
  let end = 0;
  for (const [name, { dtype, shape }] of Object.entries(tensors)) {
    const begin = end;
    end += shape.reduce((product, size) => product * size, BYTES[dtype]!);
    header[name] = { dtype, shape, data_offsets: [begin, end] };
  }
  change(header);
  return safetensorsOf(JSON.stringify(header), end);
}

/** A file with this header text and so many bytes of data. */
export function safetensorsOf(header: string | Buffer, dataBytes: number): Buffer {
  const text = Buffer.from(header);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  return Buffer.concat([length, text, Buffer.alloc(dataBytes)]);
}

export const TINY = {
  architectures: ['LlamaForCausalLM'],
  model_type: 'llama',
  vocab_size: 40,
  hidden_size: 16,
  intermediate_size: 24,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  max_position_embeddings: 64,
  rms_norm_eps: 1e-5,
  rope_theta: 10000,
  hidden_act: 'silu',
  tie_word_embeddings: false,
  bos_token_id: 1,
  eos_token_id: 2,
};
export type TinyConfig = Record<string, unknown>;

/** Tensors of TINY, by hand and not by the code under test. */
export function tinyTensors(
  o: { isTied?: boolean; layers?: number; dtype?: string; biases?: string[] } = {},
): FakeTensors {
  const dtype = o.dtype ?? 'F32';
  const sizes: Record<string, [number, number]> = {
    'self_attn.q_proj': [16, 16],
    'self_attn.k_proj': [8, 16],
    'self_attn.v_proj': [8, 16],
    'self_attn.o_proj': [16, 16],
    'mlp.gate_proj': [24, 16],
    'mlp.up_proj': [24, 16],
    'mlp.down_proj': [16, 24],
  };
  const tensors: FakeTensors = { 'model.embed_tokens.weight': { dtype, shape: [40, 16] } };
  for (let layer = 0; layer < (o.layers ?? 2); layer++) {
    for (const [name, shape] of Object.entries(sizes)) {
      tensors[`model.layers.${layer}.${name}.weight`] = { dtype, shape };
      if (o.biases?.includes(name)) tensors[`model.layers.${layer}.${name}.bias`] = { dtype, shape: [shape[0]] };
    }
    tensors[`model.layers.${layer}.input_layernorm.weight`] = { dtype, shape: [16] };
    tensors[`model.layers.${layer}.post_attention_layernorm.weight`] = { dtype, shape: [16] };
  }
  tensors['model.norm.weight'] = { dtype, shape: [16] };
  if (!o.isTied) tensors['lm_head.weight'] = { dtype, shape: [40, 16] };
  return tensors;
}

export async function baseFolder(
  config: TinyConfig = TINY,
  tensors: FakeTensors = tinyTensors(),
  files: Record<string, unknown> = {},
): Promise<string> {
  const path = await newFolder();
  await writeFiles(path, { 'config.json': config, 'model.safetensors': safetensors(tensors), ...files });
  return path;
}

/** A Buffer or a string as it is, anything else as JSON, undefined not at all. */
export async function writeFiles(path: string, files: Record<string, unknown>): Promise<void> {
  for (const [name, content] of Object.entries(files)) {
    if (content === undefined) continue;
    const data = typeof content === 'string' || Buffer.isBuffer(content) ? content : JSON.stringify(content);
    await writeFile(join(path, name), data);
  }
}

/** What PEFT 0.21 writes, with everything at its default. */
export const LORA_CONFIG: Record<string, unknown> = {
  alora_invocation_tokens: null,
  alpha_pattern: {},
  arrow_config: null,
  auto_mapping: null,
  base_model_name_or_path: 'test/tiny',
  bias: 'none',
  corda_config: null,
  ensure_weight_tying: false,
  eva_config: null,
  exclude_modules: null,
  fan_in_fan_out: false,
  inference_mode: true,
  init_lora_weights: true,
  kasa_config: null,
  layer_replication: null,
  layers_pattern: null,
  layers_to_transform: null,
  loftq_config: {},
  lora_alpha: 16,
  lora_bias: false,
  lora_dropout: 0.05,
  lora_ga_config: null,
  megatron_config: null,
  megatron_core: 'megatron.core',
  modules_to_save: null,
  monteclora_config: null,
  peft_type: 'LORA',
  peft_version: '0.21.2',
  qalora_group_size: 16,
  r: 4,
  rank_pattern: {},
  revision: null,
  target_modules: ['q_proj', 'v_proj'],
  target_parameters: null,
  task_type: 'CAUSAL_LM',
  trainable_token_indices: null,
  use_bdlora: null,
  use_dora: false,
  use_qalora: false,
  use_rslora: false,
  velora_config: null,
};

/** Tensors of an adapter of TINY: module (without the prefix) → rank. */
export function loraTensors(modules: Record<string, number>, dtype = 'F32'): FakeTensors {
  const base = tinyTensors();
  const tensors: FakeTensors = {};
  for (const [module, rank] of Object.entries(modules)) {
    const [rows, cols] = base[`${module}.weight`]!.shape as [number, number];
    const prefix = `base_model.model.${module}`;
    if (module.endsWith('embed_tokens')) {
      tensors[`${prefix}.lora_embedding_A`] = { dtype, shape: [rank, rows] };
      tensors[`${prefix}.lora_embedding_B`] = { dtype, shape: [cols, rank] };
    } else {
      tensors[`${prefix}.lora_A.weight`] = { dtype, shape: [rank, cols] };
      tensors[`${prefix}.lora_B.weight`] = { dtype, shape: [rows, rank] };
    }
  }
  return tensors;
}

export const QV: Record<string, number> = {
  'model.layers.0.self_attn.q_proj': 4,
  'model.layers.0.self_attn.v_proj': 4,
  'model.layers.1.self_attn.q_proj': 4,
  'model.layers.1.self_attn.v_proj': 4,
};

export async function adapterFolder(
  config: Record<string, unknown> = {},
  tensors: FakeTensors = loraTensors(QV),
  files: Record<string, unknown> = {},
): Promise<string> {
  const path = await newFolder();
  await writeFiles(path, {
    'adapter_config.json': { ...LORA_CONFIG, ...config },
    'adapter_model.safetensors': safetensors(tensors),
    ...files,
  });
  return path;
}

/** Asserts that a promise rejects with an OpenLoraError of this code; its message must name what `text` says. */
export async function expectCode(promise: Promise<unknown>, code: string, text: string | RegExp = ''): Promise<void> {
  const error: unknown = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(OpenLoraError.is(error), `rejected with ${String(error)}, not ${code}`).toBe(true);
  expect(error).toMatchObject({ code });
  expect((error as Error).message).toMatch(text);
}

/** mulberry32: a small seeded generator of numbers in [0, 1). */
export function random(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}
