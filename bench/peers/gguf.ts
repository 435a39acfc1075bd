// Writes GGUF files of version 3 (ggml's docs/gguf.md): a header with metadata and a table of tensors, then their data.

import { open, type FileHandle } from 'node:fs/promises';
import { BLOCKS, randomBlocks, type TensorType } from './gguf-blocks.js';

const VERSION = 3;
/** Of the data and of each tensor in it; general.alignment says it too. */
export const ALIGNMENT = 32;

/** Numbers of the specification. */
const VALUE_TYPES = { u32: 4, i32: 5, f32: 6, bool: 7, string: 8 } as const;
const ARRAY = 9;
type ScalarType = keyof typeof VALUE_TYPES;

export type MetadataValue =
  | { type: ScalarType; value: number | string | boolean }
  | { type: 'array'; of: ScalarType; values: readonly (number | string | boolean)[] };
export type Metadata = Readonly<Record<string, MetadataValue>>;

export interface GgufTensor {
  name: string;
  /** The number of elements of a row first: [in, out]. */
  dims: readonly number[];
  type: TensorType;
  /** Every element is 1: gains of norms, in f32 alone. */
  isOnes?: boolean;
}

/** In whole blocks; throws RangeError where a row is none. */
export function tensorBytes({ name, dims, type }: GgufTensor): number {
  const { elements, bytes } = BLOCKS[type];
  if (dims[0]! % elements !== 0)
    throw new RangeError(`${name}: rows of ${dims[0]} elements are no whole blocks of ${elements} (${type})`);
  return (dims.reduce((product, size) => product * size, 1) / elements) * bytes;
}

const aligned = (bytes: number) => Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;

export const ggufBytes = (tensors: readonly GgufTensor[]): number =>
  tensors.reduce((sum, tensor) => sum + aligned(tensorBytes(tensor)), 0);

/** Grows by pieces; numbers are little-endian. */
class Bytes {
  readonly #pieces: Buffer[] = [];

  u32(value: number): this {
    const piece = Buffer.alloc(4);
    piece.writeUInt32LE(value);
    return this.raw(piece);
  }

  u64(value: number): this {
    const piece = Buffer.alloc(8);
    piece.writeBigUInt64LE(BigInt(value));
    return this.raw(piece);
  }

  string(text: string): this {
    const piece = Buffer.from(text);
    return this.u64(piece.length).raw(piece);
  }

  scalar(type: ScalarType, value: number | string | boolean): this {
    if (type === 'string') return this.string(String(value));
    if (type === 'bool') return this.raw(Buffer.from([value ? 1 : 0]));
    const piece = Buffer.alloc(4);
    if (type === 'u32') piece.writeUInt32LE(Number(value));
    else if (type === 'i32') piece.writeInt32LE(Number(value));
    else piece.writeFloatLE(Number(value));
    return this.raw(piece);
  }

  raw(piece: Buffer): this {
    this.#pieces.push(piece);
    return this;
  }

  end(): Buffer {
    const all = Buffer.concat(this.#pieces);
    return Buffer.concat([all, Buffer.alloc(aligned(all.length) - all.length)]);
  }
}

function header(metadata: Metadata, tensors: readonly GgufTensor[]): Buffer {
  const entries = Object.entries(metadata);
  const bytes = new Bytes().raw(Buffer.from('GGUF')).u32(VERSION).u64(tensors.length).u64(entries.length);
  for (const [key, entry] of entries) {
    bytes.string(key);
    if (entry.type === 'array') {
      bytes.u32(ARRAY).u32(VALUE_TYPES[entry.of]).u64(entry.values.length);
      for (const value of entry.values) bytes.scalar(entry.of, value);
    } else {
      bytes.u32(VALUE_TYPES[entry.type]).scalar(entry.type, entry.value);
    }
  }
  let offset = 0;
  for (const tensor of tensors) {
    bytes.string(tensor.name).u32(tensor.dims.length);
    for (const size of tensor.dims) bytes.u64(size);
    bytes.u32(BLOCKS[tensor.type].number).u64(offset);
    offset += aligned(tensorBytes(tensor));
  }
  return bytes.end();
}

export interface GgufOptions {
  /** Another seed, other numbers. */
  seed: number;
  signal?: AbortSignal;
}

export async function writeGguf(
  path: string,
  metadata: Metadata,
  tensors: readonly GgufTensor[],
  { seed, signal }: GgufOptions,
): Promise<void> {
  const entries: Metadata = { ...metadata, 'general.alignment': { type: 'u32', value: ALIGNMENT } };
  const file = await open(path, 'w');
  try {
    await writeAll(file, header(entries, tensors));
    let place = seed * 7919;
    for (const tensor of tensors) {
      signal?.throwIfAborted();
      const bytes = tensorBytes(tensor);
      if (tensor.isOnes) await writeAll(file, Buffer.from(new Float32Array(bytes / 4).fill(1).buffer));
      else place = await writeRandom(file, tensor.type, bytes, place);
      await writeAll(file, Buffer.alloc(aligned(bytes) - bytes));
    }
  } finally {
    await file.close();
  }
}

/** Slices of the type's random blocks, from block `place` on; returns where the next tensor begins. */
async function writeRandom(file: FileHandle, type: TensorType, bytes: number, place: number): Promise<number> {
  const pool = randomBlocks(type);
  const block = BLOCKS[type].bytes;
  let at = (place * block) % pool.length;
  for (let left = bytes; left > 0;) {
    const slice = pool.subarray(at, Math.min(pool.length, at + left));
    await writeAll(file, slice);
    left -= slice.length;
    at = (at + slice.length + 97 * block) % pool.length;
  }
  return at / block + 1009;
}

async function writeAll(file: FileHandle, bytes: Uint8Array): Promise<void> {
  for (let done = 0; done < bytes.length;) done += (await file.write(bytes, done)).bytesWritten;
}
