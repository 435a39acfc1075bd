// A reader of GGUF files by the specification alone: it shares nothing with the writer, block sizes least of all.

import { readFileSync } from 'node:fs';

export interface ReadTensor {
  name: string;
  dims: number[];
  type: number;
  /** In the file. */
  begin: number;
  end: number;
}

export interface ReadGguf {
  version: number;
  metadata: Map<string, unknown>;
  tensors: ReadTensor[];
  /** Where the tensors' data begins. */
  dataBegin: number;
  bytes: Buffer;
}

/** ggml's numbers: [elements, bytes] of a block. */
const TYPES: Readonly<Record<number, readonly [number, number]>> = {
  0: [1, 4], // F32
  1: [1, 2], // F16
  2: [32, 2 + 16], // Q4_0: scale, nibbles
  6: [32, 2 + 4 + 16], // Q5_0: scale, fifth bits, nibbles
  8: [32, 2 + 32], // Q8_0: scale, bytes
  12: [256, 2 + 2 + 12 + 128], // Q4_K: two scales, scales and minima of 6 bits, nibbles
  14: [256, 128 + 64 + 16 + 2], // Q6_K: lower bits, upper bits, scales, scale
  30: [1, 2], // BF16
};

class Cursor {
  at = 0;
  constructor(private readonly bytes: Buffer) {}

  private take(count: number): Buffer {
    this.at += count;
    return this.bytes.subarray(this.at - count, this.at);
  }

  u32(): number {
    return this.take(4).readUInt32LE();
  }

  u64(): number {
    return Number(this.take(8).readBigUInt64LE());
  }

  string(): string {
    return this.take(this.u64()).toString('utf8');
  }

  value(type: number): unknown {
    switch (type) {
      case 4:
        return this.u32();
      case 5:
        return this.take(4).readInt32LE();
      case 6:
        return this.take(4).readFloatLE();
      case 7:
        return this.take(1)[0] === 1;
      case 8:
        return this.string();
      case 9: {
        const of = this.u32();
        return Array.from({ length: this.u64() }, () => this.value(of));
      }
      default:
        throw new Error(`value of type ${type}`);
    }
  }
}

export function readGguf(path: string): ReadGguf {
  const bytes = readFileSync(path);
  const cursor = new Cursor(bytes);
  if (bytes.subarray(0, 4).toString('latin1') !== 'GGUF') throw new Error('no GGUF file');
  cursor.at = 4;
  const version = cursor.u32();
  const [tensorCount, entryCount] = [cursor.u64(), cursor.u64()];
  const metadata = new Map<string, unknown>();
  for (let i = 0; i < entryCount; i++) {
    const key = cursor.string();
    if (metadata.has(key)) throw new Error(`${key} twice`);
    metadata.set(key, cursor.value(cursor.u32()));
  }
  const infos = Array.from({ length: tensorCount }, () => {
    const name = cursor.string();
    const dims = Array.from({ length: cursor.u32() }, () => cursor.u64());
    return { name, dims, type: cursor.u32(), offset: cursor.u64() };
  });
  const alignment = metadata.get('general.alignment') as number;
  const dataBegin = Math.ceil(cursor.at / alignment) * alignment;
  const tensors = infos.map(({ offset, ...info }) => {
    const [elements, blockBytes] = TYPES[info.type]!;
    if (info.dims[0]! % elements !== 0) throw new Error(`${info.name}: a row is no whole blocks`);
    const begin = dataBegin + offset;
    return { ...info, begin, end: begin + (info.dims.reduce((a, b) => a * b) / elements) * blockBytes };
  });
  return { version, metadata, tensors, dataBegin, bytes };
}

export function halfToNumber(bits: number): number {
  const [sign, exponent, fraction] = [bits >> 15 ? -1 : 1, (bits >> 10) & 31, bits & 1023];
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (exponent === 0 ? fraction / 1024 : 1 + fraction / 1024) * 2 ** ((exponent || 1) - 15);
}

/** The numbers of one block, as the types define them. */
export function blockValues({ bytes }: ReadGguf, type: number, at: number): number[] {
  const half = (offset: number) => halfToNumber(bytes.readUInt16LE(at + offset));
  const nibbles = (offset: number, i: number) => (bytes[at + offset + (i % 16)]! >> (i < 16 ? 0 : 4)) & 15;
  const indices = Array.from({ length: TYPES[type]![0] }, (_, i) => i);
  switch (type) {
    case 0:
      return [bytes.readFloatLE(at)];
    case 1:
      return [half(0)];
    case 30:
      return [Buffer.from([0, 0, bytes[at]!, bytes[at + 1]!]).readFloatLE()];
    case 2:
      return indices.map((i) => half(0) * (nibbles(2, i) - 8));
    case 6:
      return indices.map((i) => half(0) * ((nibbles(6, i) | (((bytes.readUInt32LE(at + 2) >>> i) & 1) << 4)) - 16));
    case 8:
      return indices.map((i) => half(0) * bytes.readInt8(at + 2 + i));
    case 12:
      return indices.map((i) => {
        const [scale, minimum] = sixBits(bytes.subarray(at + 4, at + 16), i >> 5);
        const quant = (bytes[at + 16 + 32 * (i >> 6) + (i & 31)]! >> (i & 32 ? 4 : 0)) & 15;
        return half(0) * scale * quant - half(2) * minimum;
      });
    case 14:
      return indices.map((i) => {
        const [part, j] = [i >> 7, i & 127];
        const low = (bytes[at + 64 * part + (j & 63)]! >> (j & 64 ? 4 : 0)) & 15;
        const high = (bytes[at + 128 + 32 * part + (j & 31)]! >> (2 * (j >> 5))) & 3;
        return half(208) * bytes.readInt8(at + 192 + (i >> 4)) * ((low | (high << 4)) - 32);
      });
    default:
      throw new Error(`type ${type}`);
  }
}

/** Scale and minimum of group `j` of 8, out of Q4_K's 12 bytes. */
function sixBits(bytes: Buffer, j: number): [number, number] {
  if (j < 4) return [bytes[j]! & 63, bytes[j + 4]! & 63];
  return [(bytes[j + 4]! & 15) | ((bytes[j - 4]! >> 6) << 4), (bytes[j + 4]! >> 4) | ((bytes[j]! >> 6) << 4)];
}
