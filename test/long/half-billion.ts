// A checkpoint of the shape of Qwen2.5-0.5B with random weights (2 GB in f32), and adapters of rank 16 on all of its
// linear modules, written to disk within seconds.

import { closeSync, mkdirSync, openSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';

export const SHAPE = {
  vocab: 151_936,
  hidden: 896,
  layers: 24,
  heads: 14,
  kvHeads: 2,
  headDim: 64,
  intermediate: 4864,
  context: 32_768,
} as const;
export const RANK = 16;
const SHARDS = 3;
const SCALE = 0.02;

/** [out, in] of a layer's linear modules. */
const LINEAR: Record<string, readonly [number, number]> = {
  'self_attn.q_proj': [SHAPE.heads * SHAPE.headDim, SHAPE.hidden],
  'self_attn.k_proj': [SHAPE.kvHeads * SHAPE.headDim, SHAPE.hidden],
  'self_attn.v_proj': [SHAPE.kvHeads * SHAPE.headDim, SHAPE.hidden],
  'self_attn.o_proj': [SHAPE.hidden, SHAPE.heads * SHAPE.headDim],
  'mlp.gate_proj': [SHAPE.intermediate, SHAPE.hidden],
  'mlp.up_proj': [SHAPE.intermediate, SHAPE.hidden],
  'mlp.down_proj': [SHAPE.hidden, SHAPE.intermediate],
};
const linear = Object.values(LINEAR);

/** Elements of all layers' linear modules, of the head, and of one adapter. */
export const LAYER_WEIGHTS = SHAPE.layers * linear.reduce((sum, [rows, cols]) => sum + rows * cols, 0);
export const HEAD_WEIGHTS = SHAPE.vocab * SHAPE.hidden;
export const ADAPTER_WEIGHTS = SHAPE.layers * RANK * linear.reduce((sum, [rows, cols]) => sum + rows + cols, 0);

const POOL_FLOATS = 1 << 22;
let pool: Float32Array | undefined;

/** Normal deviates (xorshift32, Box and Muller), made once; tensors take slices of them from different places. */
function normals(): Float32Array {
  if (pool) return pool;
  pool = new Float32Array(POOL_FLOATS);
  let state = 0x9e3779b9;
  const uniform = () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return ((state >>> 0) + 1) / (2 ** 32 + 1);
  };
  for (let i = 0; i < POOL_FLOATS; i += 2) {
    const radius = SCALE * Math.sqrt(-2 * Math.log(uniform()));
    const angle = 2 * Math.PI * uniform();
    pool[i] = radius * Math.cos(angle);
    pool[i + 1] = radius * Math.sin(angle);
  }
  return pool;
}

interface Tensor {
  name: string;
  shape: readonly number[];
}

const sizeOf = ({ shape }: Tensor) => shape.reduce((product, size) => product * size, 1);

/** `seed` chooses where in the pool each tensor begins. */
function writeSafetensors(path: string, tensors: readonly Tensor[], seed: number): void {
  const header: Record<string, unknown> = { __metadata__: { format: 'pt' } };
  let end = 0;
  for (const tensor of tensors) {
    const begin = end;
    end += sizeOf(tensor) * 4;
    header[tensor.name] = { dtype: 'F32', shape: tensor.shape, data_offsets: [begin, end] };
  }
  const json = JSON.stringify(header);
  const text = Buffer.from(json.padEnd(Math.ceil(json.length / 8) * 8));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  const file = openSync(path, 'w');
  writeSync(file, Buffer.concat([length, text]));
  let place = (seed * 1_000_003) % POOL_FLOATS;
  for (const tensor of tensors) {
    if (tensor.name.endsWith('norm.weight')) {
      writeSync(file, new Float32Array(sizeOf(tensor)).fill(1));
      continue;
    }
    for (let left = sizeOf(tensor); left > 0;) {
      const count = Math.min(left, POOL_FLOATS - place);
      const slice = normals().subarray(place, place + count);
      for (let done = 0; done < slice.byteLength;)
        done += writeSync(file, new Uint8Array(slice.buffer, slice.byteOffset + done, slice.byteLength - done));
      left -= count;
      place = (place + count + 12_289) % POOL_FLOATS;
    }
  }
  closeSync(file);
}

function layerTensors(layer: number): Tensor[] {
  const prefix = `model.layers.${layer}`;
  const tensors: Tensor[] = Object.entries(LINEAR).map(([name, shape]) => ({
    name: `${prefix}.${name}.weight`,
    shape,
  }));
  for (const name of ['q_proj', 'k_proj', 'v_proj'])
    tensors.push({ name: `${prefix}.self_attn.${name}.bias`, shape: [LINEAR[`self_attn.${name}`]![0]] });
  for (const name of ['input_layernorm', 'post_attention_layernorm'])
    tensors.push({ name: `${prefix}.${name}.weight`, shape: [SHAPE.hidden] });
  return tensors;
}

/** Byte-level, without merges: the 256 bytes, and fillers up to the size of the vocabulary. */
function tokenizerJson(): object {
  const isPlain = (byte: number) => (byte > 32 && byte < 127) || (byte > 160 && byte < 173) || byte > 173;
  let shifted = 256;
  const vocab: Record<string, number> = {};
  for (let byte = 0; byte < 256; byte++) vocab[String.fromCharCode(isPlain(byte) ? byte : shifted++)] = byte;
  for (let id = 256; id < SHAPE.vocab; id++) vocab[`token${id}`] = id;
  const byteLevel = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: false };
  return {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: [],
    normalizer: null,
    pre_tokenizer: byteLevel,
    post_processor: null,
    decoder: byteLevel,
    model: { type: 'BPE', dropout: null, unk_token: null, fuse_unk: false, byte_fallback: false, vocab, merges: [] },
  };
}

function writeJson(folder: string, files: Record<string, object>): void {
  for (const [name, content] of Object.entries(files)) writeFileSync(join(folder, name), JSON.stringify(content));
}

/** Writes the checkpoint into `folder`. */
export function writeBase(folder: string): void {
  mkdirSync(folder, { recursive: true });
  const tensors: Tensor[] = [
    { name: 'model.embed_tokens.weight', shape: [SHAPE.vocab, SHAPE.hidden] },
    { name: 'model.norm.weight', shape: [SHAPE.hidden] },
    ...Array.from({ length: SHAPE.layers }, (_, layer) => layerTensors(layer)).flat(),
  ];
  const weightMap: Record<string, string> = {};
  for (let shard = 0; shard < SHARDS; shard++) {
    const name = `model-0000${shard + 1}-of-0000${SHARDS}.safetensors`;
    const some = tensors.slice((tensors.length * shard) / SHARDS, (tensors.length * (shard + 1)) / SHARDS);
    for (const tensor of some) weightMap[tensor.name] = name;
    writeSafetensors(join(folder, name), some, shard);
  }
  writeJson(folder, {
    'model.safetensors.index.json': { metadata: {}, weight_map: weightMap },
    'tokenizer.json': tokenizerJson(),
    'tokenizer_config.json': {},
    'config.json': {
      architectures: ['Qwen2ForCausalLM'],
      model_type: 'qwen2',
      vocab_size: SHAPE.vocab,
      hidden_size: SHAPE.hidden,
      intermediate_size: SHAPE.intermediate,
      num_hidden_layers: SHAPE.layers,
      num_attention_heads: SHAPE.heads,
      num_key_value_heads: SHAPE.kvHeads,
      max_position_embeddings: SHAPE.context,
      rms_norm_eps: 1e-6,
      rope_theta: 1_000_000,
      hidden_act: 'silu',
      tie_word_embeddings: true,
      use_sliding_window: false,
      eos_token_id: 0,
      torch_dtype: 'float32',
    },
  });
}

/** Writes an adapter into `folder`. */
export function writeAdapter(folder: string, seed: number): void {
  mkdirSync(folder, { recursive: true });
  const tensors = Array.from({ length: SHAPE.layers }, (_, layer) =>
    Object.entries(LINEAR).flatMap(([name, [rows, cols]]): Tensor[] => [
      { name: `base_model.model.model.layers.${layer}.${name}.lora_A.weight`, shape: [RANK, cols] },
      { name: `base_model.model.model.layers.${layer}.${name}.lora_B.weight`, shape: [rows, RANK] },
    ]),
  ).flat();
  writeSafetensors(join(folder, 'adapter_model.safetensors'), tensors, 100 + seed);
  const names = Object.keys(LINEAR).map((name) => name.split('.')[1]);
  writeJson(folder, {
    'adapter_config.json': {
      peft_type: 'LORA',
      task_type: 'CAUSAL_LM',
      r: RANK,
      lora_alpha: 2 * RANK,
      target_modules: names,
      bias: 'none',
    },
  });
}
