// Checkpoints and adapters with random weights, written to disk within seconds: speed doesn't depend on what they say.

import { mkdir, open, writeFile, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { linearModules, type Shape } from './shapes.js';

export type FileDtype = 'f32' | 'bf16';

const SCALE = 0.02;
const POOL_VALUES = 1 << 22;
const BYTES_OF = { f32: 4, bf16: 2 } as const;

type Values = Float32Array | Uint16Array;
const pools: Partial<Record<FileDtype, Values>> = {};

/** Normal deviates, made once; tensors take slices of them from different places. */
function pool(dtype: FileDtype): Values {
  return (pools[dtype] ??= dtype === 'f32' ? normals() : halved(pool('f32') as Float32Array));
}

/** By xorshift32, and Box and Muller. */
function normals(): Float32Array {
  const values = new Float32Array(POOL_VALUES);
  let state = 0x9e3779b9;
  const uniform = () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return ((state >>> 0) + 1) / (2 ** 32 + 1);
  };
  for (let i = 0; i < POOL_VALUES; i += 2) {
    const radius = SCALE * Math.sqrt(-2 * Math.log(uniform()));
    const angle = 2 * Math.PI * uniform();
    values[i] = radius * Math.cos(angle);
    values[i + 1] = radius * Math.sin(angle);
  }
  return values;
}

/** Cut to bf16: the upper half of each float. */
function halved(values: Float32Array): Uint16Array {
  const bits = new Uint32Array(values.buffer);
  return Uint16Array.from(bits, (word) => word >>> 16);
}

interface Tensor {
  name: string;
  shape: readonly number[];
}

const sizeOf = ({ shape }: Tensor) => shape.reduce((product, size) => product * size, 1);

export interface WriteOptions {
  dtype: FileDtype;
  signal?: AbortSignal;
  /** Told of bytes as they are written. */
  onBytes?: (bytes: number) => void;
}

/** `seed` chooses where in the pool each tensor begins. */
async function writeSafetensors(path: string, tensors: readonly Tensor[], seed: number, o: WriteOptions) {
  const header: Record<string, unknown> = { __metadata__: { format: 'pt' } };
  let end = 0;
  for (const tensor of tensors) {
    const begin = end;
    end += sizeOf(tensor) * BYTES_OF[o.dtype];
    header[tensor.name] = { dtype: o.dtype.toUpperCase(), shape: tensor.shape, data_offsets: [begin, end] };
  }
  const json = JSON.stringify(header);
  const text = Buffer.from(json.padEnd(Math.ceil(json.length / 8) * 8));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  const file = await open(path, 'w');
  try {
    await writeAll(file, Buffer.concat([length, text]), o);
    let place = (seed * 1_000_003) % POOL_VALUES;
    for (const tensor of tensors) {
      const isGain = tensor.name.endsWith('norm.weight');
      if (isGain) await writeAll(file, ones(sizeOf(tensor), o.dtype), o);
      for (let left = isGain ? 0 : sizeOf(tensor); left > 0;) {
        const count = Math.min(left, POOL_VALUES - place);
        await writeAll(file, pool(o.dtype).subarray(place, place + count), o);
        left -= count;
        place = (place + count + 12_289) % POOL_VALUES;
      }
    }
  } finally {
    await file.close();
  }
}

const ones = (count: number, dtype: FileDtype): Values =>
  dtype === 'f32' ? new Float32Array(count).fill(1) : new Uint16Array(count).fill(0x3f80);

async function writeAll(file: FileHandle, values: ArrayBufferView, { signal, onBytes }: WriteOptions): Promise<void> {
  const bytes = new Uint8Array(values.buffer as ArrayBuffer, values.byteOffset, values.byteLength);
  for (let done = 0; done < bytes.length;) {
    signal?.throwIfAborted();
    done += (await file.write(bytes, done)).bytesWritten;
  }
  onBytes?.(bytes.length);
}

function baseTensors(shape: Shape): Tensor[] {
  const head = shape.isTied ? [] : [{ name: 'lm_head.weight', shape: [shape.vocab, shape.hidden] }];
  return [
    { name: 'model.embed_tokens.weight', shape: [shape.vocab, shape.hidden] },
    { name: 'model.norm.weight', shape: [shape.hidden] },
    ...Array.from({ length: shape.layers }, (_, layer) => layerTensors(shape, `model.layers.${layer}`)).flat(),
    ...head,
  ];
}

function layerTensors(shape: Shape, prefix: string): Tensor[] {
  const linear = Object.entries(linearModules(shape));
  const tensors: Tensor[] = linear.map(([name, size]) => ({ name: `${prefix}.${name}.weight`, shape: size }));
  for (const [name, [rows]] of linear)
    if (shape.biases.includes(name.split('.')[1]!)) tensors.push({ name: `${prefix}.${name}.bias`, shape: [rows] });
  for (const name of ['input_layernorm', 'post_attention_layernorm'])
    tensors.push({ name: `${prefix}.${name}.weight`, shape: [shape.hidden] });
  for (const name of shape.hasQkNorm ? ['q_norm', 'k_norm'] : [])
    tensors.push({ name: `${prefix}.self_attn.${name}.weight`, shape: [shape.headDim] });
  return tensors;
}

const suffixOf = (module: string) => module.split('.')[1]!;

/** Of `modules`, `q_proj` and so on; default: of all. */
function adapterModules(shape: Shape, modules?: readonly string[]): [string, readonly [number, number]][] {
  const all = Object.entries(linearModules(shape));
  return modules === undefined ? all : all.filter(([name]) => modules.includes(suffixOf(name)));
}

function adapterTensors(shape: Shape, rank: number, modules?: readonly string[]): Tensor[] {
  return Array.from({ length: shape.layers }, (_, layer) =>
    adapterModules(shape, modules).flatMap(([name, [rows, cols]]): Tensor[] => [
      { name: `base_model.model.model.layers.${layer}.${name}.lora_A.weight`, shape: [rank, cols] },
      { name: `base_model.model.model.layers.${layer}.${name}.lora_B.weight`, shape: [rows, rank] },
    ]),
  ).flat();
}

/** Byte-level, without merges: the 256 bytes, and fillers up to the size of the vocabulary. */
function tokenizerJson(size: number): object {
  const isPlain = (byte: number) => (byte > 32 && byte < 127) || (byte > 160 && byte < 173) || byte > 173;
  let shifted = 256;
  const vocab: Record<string, number> = {};
  for (let byte = 0; byte < 256; byte++) vocab[String.fromCharCode(isPlain(byte) ? byte : shifted++)] = byte;
  for (let id = 256; id < size; id++) vocab[`token${id}`] = id;
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

async function writeJson(folder: string, files: Record<string, object>): Promise<void> {
  for (const [name, content] of Object.entries(files)) await writeFile(join(folder, name), JSON.stringify(content));
}

const bytesOf = (tensors: readonly Tensor[], dtype: FileDtype) =>
  tensors.reduce((sum, tensor) => sum + sizeOf(tensor), 0) * BYTES_OF[dtype];

/** Of the tensors alone. */
export const baseBytes = (shape: Shape, dtype: FileDtype): number => bytesOf(baseTensors(shape), dtype);
export const adapterBytes = (shape: Shape, rank: number, dtype: FileDtype, modules?: readonly string[]): number =>
  bytesOf(adapterTensors(shape, rank, modules), dtype);

/** Writes a checkpoint into `folder`; with `shards` in so many files, and an index. */
export async function writeBase(folder: string, shape: Shape, o: WriteOptions & { shards?: number }): Promise<void> {
  await mkdir(folder, { recursive: true });
  const tensors = baseTensors(shape);
  const shards = o.shards ?? 1;
  const weightMap: Record<string, string> = {};
  for (let shard = 0; shard < shards; shard++) {
    const number = (count: number) => String(count).padStart(5, '0');
    const name = shards === 1 ? 'model.safetensors' : `model-${number(shard + 1)}-of-${number(shards)}.safetensors`;
    const some = tensors.slice((tensors.length * shard) / shards, (tensors.length * (shard + 1)) / shards);
    for (const tensor of some) weightMap[tensor.name] = name;
    await writeSafetensors(join(folder, name), some, shard, o);
  }
  if (shards > 1) await writeJson(folder, { 'model.safetensors.index.json': { metadata: {}, weight_map: weightMap } });
  await writeJson(folder, {
    'tokenizer.json': tokenizerJson(shape.vocab),
    'tokenizer_config.json': {},
    'config.json': { ...shape.config, torch_dtype: o.dtype === 'f32' ? 'float32' : 'bfloat16' },
  });
}

export const ADAPTER_FILE = 'adapter_model.safetensors';

/** Writes an adapter on all linear modules, or on `modules` alone, into `folder`; another seed, another adapter. */
export async function writeAdapter(
  folder: string,
  shape: Shape,
  rank: number,
  seed: number,
  o: WriteOptions & { modules?: readonly string[] },
) {
  await mkdir(folder, { recursive: true });
  await writeSafetensors(join(folder, ADAPTER_FILE), adapterTensors(shape, rank, o.modules), 100 + seed, o);
  const config = {
    peft_type: 'LORA',
    task_type: 'CAUSAL_LM',
    r: rank,
    lora_alpha: 2 * rank,
    target_modules: adapterModules(shape, o.modules).map(([name]) => suffixOf(name)),
    bias: 'none',
  };
  await writeJson(folder, { 'adapter_config.json': config });
}
