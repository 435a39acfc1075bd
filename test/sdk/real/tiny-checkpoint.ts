// A random Llama of 260 tokens and adapters for it, written to disk: enough for the real engine, small enough for every run.

import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export const SIZES = {
  vocab: 260,
  hidden: 32,
  layers: 2,
  heads: 4,
  kvHeads: 2,
  headDim: 8,
  intermediate: 48,
  context: 4096,
};
/** Byte b is token b + FIRST_BYTE; before them BOS, EOS, PAD. */
export const FIRST_BYTE = 3;

/** mulberry32, as a normal deviate (Box and Muller). */
function normalsOf(seed: number): () => number {
  let state = seed >>> 0;
  const uniform = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return (((t ^ (t >>> 14)) >>> 0) + 1) / (2 ** 32 + 1);
  };
  return () => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform());
}

type Shapes = Record<string, readonly number[]>;

function safetensors(
  shapes: Shapes,
  seed: number,
  scaleOf: (name: string, shape: readonly number[]) => number,
): Buffer {
  const normal = normalsOf(seed);
  const header: Record<string, unknown> = { __metadata__: { format: 'pt' } };
  const values: Buffer[] = [];
  let end = 0;
  for (const [name, shape] of Object.entries(shapes)) {
    const count = shape.reduce((product, size) => product * size, 1);
    const isNorm = shape.length === 1;
    const data = Float32Array.from({ length: count }, () => (isNorm ? 1 : normal() * scaleOf(name, shape)));
    values.push(Buffer.from(data.buffer));
    header[name] = { dtype: 'F32', shape, data_offsets: [end, end + count * 4] };
    end += count * 4;
  }
  const text = Buffer.from(JSON.stringify(header).padEnd(Math.ceil(JSON.stringify(header).length / 8) * 8));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  return Buffer.concat([length, text, ...values]);
}

function layerShapes(): Record<string, [number, number]> {
  const { hidden, heads, kvHeads, headDim, intermediate } = SIZES;
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

function baseShapes(): Shapes {
  const { vocab, hidden, layers } = SIZES;
  const shapes: Record<string, number[]> = { 'model.embed_tokens.weight': [vocab, hidden] };
  for (let layer = 0; layer < layers; layer++) {
    for (const [name, shape] of Object.entries(layerShapes())) shapes[`model.layers.${layer}.${name}.weight`] = shape;
    shapes[`model.layers.${layer}.input_layernorm.weight`] = [hidden];
    shapes[`model.layers.${layer}.post_attention_layernorm.weight`] = [hidden];
  }
  return { ...shapes, 'model.norm.weight': [hidden], 'lm_head.weight': [vocab, hidden] };
}

/** Byte-level BPE without merges: the bytes as GPT-2 writes them. */
function tokenizerJson(): object {
  const isPlain = (byte: number) => (byte > 32 && byte < 127) || (byte > 160 && byte < 173) || byte > 173;
  let shifted = 256;
  const specials = ['<s>', '</s>', '<pad>'];
  const vocab: Record<string, number> = Object.fromEntries(specials.map((content, id) => [content, id]));
  for (let byte = 0; byte < 256; byte++)
    vocab[String.fromCharCode(isPlain(byte) ? byte : shifted++)] = byte + FIRST_BYTE;
  const byteLevel = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: false };
  const flags = { single_word: false, lstrip: false, rstrip: false, normalized: false, special: true };
  return {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: specials.map((content, id) => ({ id, content, ...flags })),
    normalizer: null,
    pre_tokenizer: byteLevel,
    post_processor: {
      type: 'TemplateProcessing',
      single: [{ SpecialToken: { id: '<s>', type_id: 0 } }, { Sequence: { id: 'A', type_id: 0 } }],
      pair: [{ Sequence: { id: 'A', type_id: 0 } }, { Sequence: { id: 'B', type_id: 1 } }],
      special_tokens: { '<s>': { id: '<s>', ids: [0], tokens: ['<s>'] } },
    },
    decoder: byteLevel,
    model: { type: 'BPE', dropout: null, unk_token: null, fuse_unk: false, byte_fallback: false, vocab, merges: [] },
  };
}

export interface TinyCheckpoint {
  root: string;
  base: string;
  /** Of ranks 2, 3, 8 and 16. */
  adapters: string[];
}

/** The caller removes `root`. */
export function writeTinyCheckpoint(): TinyCheckpoint {
  const root = mkdtempSync(join(tmpdir(), 'openlora-tiny-'));
  const base = join(root, 'base');
  const scale = (_name: string, shape: readonly number[]) => 1.5 / Math.sqrt(shape[1]!);
  writeFolder(base, {
    'config.json': {
      architectures: ['LlamaForCausalLM'],
      model_type: 'llama',
      vocab_size: SIZES.vocab,
      hidden_size: SIZES.hidden,
      intermediate_size: SIZES.intermediate,
      num_hidden_layers: SIZES.layers,
      num_attention_heads: SIZES.heads,
      num_key_value_heads: SIZES.kvHeads,
      max_position_embeddings: SIZES.context,
      rms_norm_eps: 1e-5,
      rope_theta: 10_000,
      hidden_act: 'silu',
      tie_word_embeddings: false,
      bos_token_id: 0,
      eos_token_id: 1,
    },
    'model.safetensors': safetensors(baseShapes(), 1, scale),
    'tokenizer.json': tokenizerJson(),
    'tokenizer_config.json': {
      bos_token: '<s>',
      eos_token: '</s>',
      chat_template:
        "<s>{% for m in messages %}{{ m['role'] }}:{{ m['content'] }};{% endfor %}{% if add_generation_prompt %}>{% endif %}",
    },
  });
  const adapters = [2, 3, 8, 16].map((rank, i) => writeAdapter(join(root, `adapter-${rank}`), rank, 100 + i));
  return { root, base, adapters };
}

/** Modules of every layer, by the last part of their names, and perhaps `lm_head`. */
export function writeAdapter(
  folder: string,
  rank: number,
  seed: number,
  targets: readonly string[] = ['q_proj', 'v_proj', 'down_proj'],
): string {
  const shapes: Record<string, number[]> = {};
  if (targets.includes('lm_head')) {
    shapes['base_model.model.lm_head.lora_A.weight'] = [rank, SIZES.hidden];
    shapes['base_model.model.lm_head.lora_B.weight'] = [SIZES.vocab, rank];
  }
  for (let layer = 0; layer < SIZES.layers; layer++) {
    for (const [name, [rows, cols]] of Object.entries(layerShapes())) {
      if (!targets.some((target) => name.endsWith(target))) continue;
      const prefix = `base_model.model.model.layers.${layer}.${name}`;
      shapes[`${prefix}.lora_A.weight`] = [rank, cols];
      shapes[`${prefix}.lora_B.weight`] = [rows, rank];
    }
  }
  const config = {
    peft_type: 'LORA',
    task_type: 'CAUSAL_LM',
    r: rank,
    lora_alpha: rank * 2,
    target_modules: targets,
    bias: 'none',
  };
  writeFolder(folder, {
    'adapter_config.json': config,
    'adapter_model.safetensors': safetensors(shapes, seed, () => 0.25),
  });
  return folder;
}

function writeFolder(folder: string, files: Record<string, object>): void {
  mkdirSync(folder, { recursive: true });
  for (const [name, content] of Object.entries(files)) {
    writeFileSync(join(folder, name), Buffer.isBuffer(content) ? content : JSON.stringify(content));
  }
}
