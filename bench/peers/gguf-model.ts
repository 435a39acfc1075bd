// The tensors and the metadata of a model and of its LoRA adapters, as llama.cpp reads them: which type each tensor has is
// what llama-quantize chooses for that kind of file.

import { linearModules, type Shape } from '../../src/cli/bench/shapes.js';
import { writeGguf, type GgufOptions, type GgufTensor, type Metadata, type MetadataValue } from './gguf.js';
import { BLOCKS, type TensorType } from './gguf-blocks.js';

export const GGUF_FORMATS = ['f16', 'bf16', 'q8_0', 'q4_0', 'q4_k_m'] as const;
export type GgufFormat = (typeof GGUF_FORMATS)[number];

/** general.file_type: what llama.cpp prints of a file, nothing else. */
const FILE_TYPES: Record<GgufFormat, number> = { f16: 1, bf16: 32, q8_0: 7, q4_0: 2, q4_k_m: 15 };

const SITES: Readonly<Record<string, string>> = {
  'self_attn.q_proj': 'attn_q',
  'self_attn.k_proj': 'attn_k',
  'self_attn.v_proj': 'attn_v',
  'self_attn.o_proj': 'attn_output',
  'mlp.gate_proj': 'ffn_gate',
  'mlp.up_proj': 'ffn_up',
  'mlp.down_proj': 'ffn_down',
};

/** Throws RangeError for a family that these files aren't written for. */
function architecture({ name, config }: Shape): string {
  const family = String(config.model_type);
  if (family !== 'llama' && family !== 'qwen2') throw new RangeError(`${name} is a ${family}, wanted llama or qwen2`);
  return family;
}

/** Layers that Q4_K_M gives more bits: the first and last eighth, and every third between them. */
function hasMoreBits(layer: number, layers: number): boolean {
  const eighth = Math.floor(layers / 8);
  return layer < eighth || layer >= Math.floor((7 * layers) / 8) || (layer - eighth) % 3 === 2;
}

/** Rows that are no whole blocks of 256 get the next larger type with blocks of 32. */
function fitting(type: TensorType, cols: number): TensorType {
  if (cols % BLOCKS[type].elements === 0) return type;
  return type === 'q6_k' ? 'q8_0' : 'q5_0';
}

function linearType(format: GgufFormat, site: string, layer: number, layers: number): TensorType {
  if (format !== 'q4_k_m') return format;
  const isFavoured = site === 'attn_v' || site === 'ffn_down';
  return isFavoured && hasMoreBits(layer, layers) ? 'q6_k' : 'q4_k';
}

/** Of the product that makes logits: with tied embeddings it is the embedding. */
function headType(format: GgufFormat): TensorType {
  return format === 'q4_0' || format === 'q4_k_m' ? 'q6_k' : format;
}

const embeddingType = (format: GgufFormat): TensorType => (format === 'q4_k_m' ? 'q4_k' : format);

export function modelTensors(shape: Shape, format: GgufFormat): GgufTensor[] {
  const { hidden, vocab, layers, isTied } = shape;
  const weight = (name: string, cols: number, rows: number, type: TensorType): GgufTensor => ({
    name: `${name}.weight`,
    dims: [cols, rows],
    type: fitting(type, cols),
  });
  const gain = (name: string): GgufTensor => ({ name: `${name}.weight`, dims: [hidden], type: 'f32', isOnes: true });
  const layer = (index: number) => {
    const tensors = [gain(`blk.${index}.attn_norm`), gain(`blk.${index}.ffn_norm`)];
    for (const [module, [rows, cols]] of Object.entries(linearModules(shape))) {
      const site = SITES[module]!;
      tensors.push(weight(`blk.${index}.${site}`, cols, rows, linearType(format, site, index, layers)));
      if (shape.biases.includes(module.split('.')[1]!))
        tensors.push({ name: `blk.${index}.${site}.bias`, dims: [rows], type: 'f32' });
    }
    return tensors;
  };
  return [
    weight('token_embd', hidden, vocab, isTied ? headType(format) : embeddingType(format)),
    gain('output_norm'),
    ...(isTied ? [] : [weight('output', hidden, vocab, headType(format))]),
    ...Array.from({ length: layers }, (_, index) => layer(index)).flat(),
  ];
}

/** A and B in f16. */
export function adapterTensors(shape: Shape, rank: number): GgufTensor[] {
  return Array.from({ length: shape.layers }, (_, layer) =>
    Object.entries(linearModules(shape)).flatMap(([module, [rows, cols]]): GgufTensor[] => [
      { name: `blk.${layer}.${SITES[module]}.weight.lora_a`, dims: [cols, rank], type: 'f16' },
      { name: `blk.${layer}.${SITES[module]}.weight.lora_b`, dims: [rank, rows], type: 'f16' },
    ]),
  ).flat();
}

const u32 = (value: number): MetadataValue => ({ type: 'u32', value });
const f32 = (value: number): MetadataValue => ({ type: 'f32', value });
const text = (value: string): MetadataValue => ({ type: 'string', value });

function modelMetadata(shape: Shape, format: GgufFormat): Metadata {
  const family = architecture(shape);
  const sizes = {
    block_count: u32(shape.layers),
    context_length: u32(shape.context),
    embedding_length: u32(shape.hidden),
    feed_forward_length: u32(shape.intermediate),
    vocab_size: u32(shape.vocab),
    'attention.head_count': u32(shape.heads),
    'attention.head_count_kv': u32(shape.kvHeads),
    'attention.layer_norm_rms_epsilon': f32(Number(shape.config.rms_norm_eps)),
    'rope.freq_base': f32(Number(shape.config.rope_theta)),
    'rope.dimension_count': u32(shape.headDim),
  };
  return {
    'general.architecture': text(family),
    'general.type': text('model'),
    'general.name': text(`${shape.name}, random weights`),
    'general.file_type': u32(FILE_TYPES[format]),
    ...Object.fromEntries(Object.entries(sizes).map(([key, value]) => [`${family}.${key}`, value])),
    ...tokenizerMetadata(shape.vocab),
  };
}

/** Kinds of tokens. */
const NORMAL = 1;
const UNKNOWN = 2;
const CONTROL = 3;
const BYTE = 6;

/** Three special tokens, the 256 bytes, and fillers up to the size of the vocabulary. */
function tokenizerMetadata(vocab: number): Metadata {
  const special = ['<unk>', '<s>', '</s>'];
  const bytes = Array.from({ length: 256 }, (_, byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`);
  const known = [...special, ...bytes];
  if (vocab < known.length) throw new RangeError(`a vocabulary of ${vocab}, wanted ${known.length} tokens or more`);
  const tokens = Array.from({ length: vocab }, (_, id) => known[id] ?? `token${id}`);
  const types = tokens.map((_, id) => (id === 0 ? UNKNOWN : id < 3 ? CONTROL : id < known.length ? BYTE : NORMAL));
  return {
    'tokenizer.ggml.model': text('llama'),
    'tokenizer.ggml.tokens': { type: 'array', of: 'string', values: tokens },
    'tokenizer.ggml.scores': { type: 'array', of: 'f32', values: tokens.map((_, id) => -id) },
    'tokenizer.ggml.token_type': { type: 'array', of: 'i32', values: types },
    'tokenizer.ggml.unknown_token_id': u32(0),
    'tokenizer.ggml.bos_token_id': u32(1),
    'tokenizer.ggml.eos_token_id': u32(2),
    'tokenizer.ggml.add_bos_token': { type: 'bool', value: false },
  };
}

export async function writeModel(path: string, shape: Shape, format: GgufFormat, o: GgufOptions): Promise<void> {
  await writeGguf(path, modelMetadata(shape, format), modelTensors(shape, format), o);
}

/** On all linear modules; another seed, another adapter. */
export async function writeLora(path: string, shape: Shape, rank: number, o: GgufOptions): Promise<void> {
  const metadata: Metadata = {
    'general.architecture': text(architecture(shape)),
    'general.type': text('adapter'),
    'adapter.type': text('lora'),
    'adapter.lora.alpha': f32(2 * rank),
  };
  await writeGguf(path, metadata, adapterTensors(shape, rank), o);
}

/** `q4_k × 120, q6_k × 20 (output), f32 × 41`: how many tensors are of each type, and of which type logits are made. */
export function typesOf(shape: Shape, format: GgufFormat): string {
  const tensors = modelTensors(shape, format);
  const counts = new Map<TensorType, number>();
  for (const { type } of tensors) counts.set(type, (counts.get(type) ?? 0) + 1);
  const head = tensors.find(({ name }) => name === 'output.weight') ?? tensors[0]!;
  return `${[...counts].map(([type, count]) => `${count} ${type}`).join(', ')}; logits by ${head.type}`;
}
