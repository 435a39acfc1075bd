// The header of a safetensors file, after https://huggingface.co/docs/safetensors and the reference reader in Rust: 8 bytes of
// header length (u64, little-endian), a JSON object name → {dtype, shape, data_offsets}, then the tensors' bytes
// without gaps. `JSON.parse` would drop duplicate keys and hold the thread for a large header, so the object is
// scanned by hand, entry by entry.
//
// | code                       | meaning                                                                            |
// |----------------------------|------------------------------------------------------------------------------------|
// | ERR_SAFETENSORS_HEADER     | header length absurd or over 100 MB; not JSON; an entry malformed; a name twice     |
// | ERR_SAFETENSORS_TRUNCATED  | the file ends before what its header promises                                      |
// | ERR_SAFETENSORS_DTYPE      | a dtype that the format doesn't have                                               |
// | ERR_SAFETENSORS_SHAPE      | a shape that isn't a list of counts, or whose product overflows                    |
// | ERR_SAFETENSORS_RANGE      | offsets reversed, overlapping, with gaps, or not the size that the shape needs     |

import { isUtf8 } from 'node:buffer';
import { createHash } from 'node:crypto';
import { OpenLoraError } from '../errors.js';
import { openRegular } from './regular-file.js';
import type { Pacer } from './pacer.js';

/** Of the JSON text; the reference reader has the same cap. */
export const SAFETENSORS_HEADER_BYTES_MAX = 100_000_000;

/** Of the header's entries the one that is no tensor. */
const METADATA = '__metadata__';

const DTYPE_BITS: Readonly<Record<string, number>> = {
  BOOL: 8,
  F4: 4,
  F6_E2M3: 6,
  F6_E3M2: 6,
  U8: 8,
  I8: 8,
  F8_E5M2: 8,
  F8_E4M3: 8,
  F8_E8M0: 8,
  F8_E4M3FNUZ: 8,
  F8_E5M2FNUZ: 8,
  I16: 16,
  U16: 16,
  F16: 16,
  BF16: 16,
  I32: 32,
  U32: 32,
  F32: 32,
  C64: 64,
  F64: 64,
  I64: 64,
  U64: 64,
};

export interface SafetensorsTensor {
  name: string;
  /** As the file spells it: `F32`, `BF16`. */
  dtype: string;
  shape: number[];
  /** Of the first byte in the file. */
  offset: number;
  bytes: number;
}

export interface SafetensorsHeader {
  path: string;
  tensors: Map<string, SafetensorsTensor>;
  metadata: Readonly<Record<string, string>>;
}

/** A header that was read from a file; `digest` is the SHA-256 (hex) of the file up to its tensors' bytes. */
export interface ReadHeader extends SafetensorsHeader {
  digest: string;
}

/** Reads and checks the header of a safetensors file; the tensors' bytes aren't read. */
export async function readSafetensorsHeader(path: string, pacer: Pacer): Promise<ReadHeader> {
  const { file, size: fileBytes } = await openRegular(path);
  try {
    const prefix = Buffer.alloc(8);
    const got = (await file.read(prefix, 0, 8, 0)).bytesRead;
    const headerBytes = headerLength(prefix.subarray(0, got), fileBytes, path);
    const header = Buffer.alloc(headerBytes);
    for (let done = 0; done < headerBytes;) {
      const { bytesRead } = await file.read(header, done, headerBytes - done, 8 + done);
      if (bytesRead === 0) throw truncated(path, `the header is ${headerBytes} bytes, the file has ${done} of them`);
      done += bytesRead;
    }
    pacer.checkAborted();
    const digest = createHash('sha256').update(prefix).update(header).digest('hex');
    return { ...(await parseSafetensorsHeader(header, fileBytes, path, pacer)), digest };
  } finally {
    await file.close();
  }
}

function headerLength(prefix: Buffer, fileBytes: number, path: string): number {
  if (prefix.length < 8) throw truncated(path, `the file has ${fileBytes} bytes, the header's length alone takes 8`);
  const length = prefix.readBigUInt64LE();
  if (length < 2n || length > BigInt(SAFETENSORS_HEADER_BYTES_MAX)) {
    throw headerError(path, `header length is ${length}, not in [2, ${SAFETENSORS_HEADER_BYTES_MAX}]`);
  }
  if (8n + length > BigInt(fileBytes)) throw truncated(path, `the header is ${length} bytes, the file ${fileBytes}`);
  return Number(length);
}

/** Checks a header's JSON text. `fileBytes` is the size of the whole file, `path` its name in messages. */
export async function parseSafetensorsHeader(
  header: Buffer,
  fileBytes: number,
  path: string,
  pacer: Pacer,
): Promise<SafetensorsHeader> {
  if (!isUtf8(header)) throw headerError(path, 'the header is not UTF-8');
  const dataBegin = 8 + header.length;
  const tensors = new Map<string, SafetensorsTensor>();
  let metadata: Record<string, string> | undefined;
  const scanner = new ObjectScanner(header, path);
  for (let name = scanner.nextKey(); name !== undefined; name = scanner.nextKey()) {
    const value = scanner.value();
    if (name === METADATA) {
      if (metadata) throw headerError(path, `${METADATA} is there twice`);
      metadata = parseMetadata(value, path);
      continue;
    }
    if (tensors.has(name)) throw headerError(path, `tensor ${name} is there twice`);
    tensors.set(name, checkTensor(parseEntry(name, value, path), dataBegin, fileBytes, path));
    if (pacer.isDue) await pacer.rest();
  }
  await checkContiguous([...tensors.values()], dataBegin, fileBytes, path, pacer);
  return { path, tensors, metadata: metadata ?? {} };
}

interface Entry {
  name: string;
  dtype: string;
  shape: number[];
  begin: number;
  end: number;
}

// What every writer produces; anything else takes the slow path and its messages.
const USUAL_ENTRY = /^\{"dtype":"([A-Z0-9_]+)","shape":\[([0-9,]*)\],"data_offsets":\[(\d{1,15}),(\d{1,15})\]\}$/;
const COUNTS = /^(?:(?:0|[1-9]\d{0,14})(?:,(?:0|[1-9]\d{0,14}))*)?$/;

function parseEntry(name: string, value: string, path: string): Entry {
  const usual = USUAL_ENTRY.exec(value);
  if (usual && COUNTS.test(usual[2]!)) {
    const shape = usual[2] === '' ? [] : usual[2]!.split(',').map(Number);
    return { name, dtype: usual[1]!, shape, begin: Number(usual[3]), end: Number(usual[4]) };
  }
  const keys = new ObjectScanner(Buffer.from(value), path);
  const seen = new Set<string>();
  for (let key = keys.nextKey(); key !== undefined; key = keys.nextKey()) {
    if (seen.has(key)) throw headerError(path, `tensor ${name} has the key ${key} twice`);
    seen.add(key);
    keys.value();
  }
  const entry = parseJson(value, path) as Record<string, unknown>;
  const { dtype, shape, data_offsets: offsets } = entry;
  const surplus = [...seen].find((key) => !['dtype', 'shape', 'data_offsets'].includes(key));
  if (surplus !== undefined) throw headerError(path, `tensor ${name} has the unknown key ${surplus}`);
  if (typeof dtype !== 'string') throw headerError(path, `tensor ${name}: dtype is ${show(dtype)}, not a string`);
  if (!Array.isArray(shape) || !shape.every(isCount)) {
    throw shapeError(path, `tensor ${name}: shape is ${show(shape)}, not a list of non-negative integers`);
  }
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isCount)) {
    throw rangeError(path, `tensor ${name}: data_offsets is ${show(offsets)}, not two byte offsets`);
  }
  return { name, dtype, shape, begin: offsets[0] as number, end: offsets[1] as number };
}

function checkTensor(entry: Entry, dataBegin: number, fileBytes: number, path: string): SafetensorsTensor {
  const { name, dtype, shape, begin, end } = entry;
  const bits = Object.hasOwn(DTYPE_BITS, dtype) ? DTYPE_BITS[dtype]! : undefined;
  if (bits === undefined) {
    throw error(
      'DTYPE',
      path,
      `tensor ${name}: unknown dtype ${dtype}; known are ${Object.keys(DTYPE_BITS).join(', ')}`,
    );
  }
  // A zero would hide an overflow of the sizes before it; the reference reader multiplies in order and checks each step.
  let elements = 1;
  for (const size of shape) {
    elements *= size;
    if (elements * bits > Number.MAX_SAFE_INTEGER)
      throw shapeError(path, `tensor ${name}: [${shape.join(', ')}] overflows`);
  }
  if (end < begin) throw rangeError(path, `tensor ${name}: data_offsets [${begin}, ${end}] are reversed`);
  if (dataBegin + end > fileBytes) {
    throw truncated(path, `tensor ${name} ends at byte ${dataBegin + end}, the file at ${fileBytes}`);
  }
  if ((elements * bits) % 8 !== 0 || end - begin !== (elements * bits) / 8) {
    const needed = `${dtype} [${shape.join(', ')}] takes ${(elements * bits) / 8}`;
    throw rangeError(path, `tensor ${name}: data_offsets [${begin}, ${end}] span ${end - begin} bytes, ${needed}`);
  }
  return { name, dtype, shape, offset: dataBegin + begin, bytes: end - begin };
}

/** Sorted by offset, each tensor begins where the one before it ends; the last ends with the file. */
async function checkContiguous(
  tensors: SafetensorsTensor[],
  dataBegin: number,
  fileBytes: number,
  path: string,
  pacer: Pacer,
): Promise<void> {
  tensors.sort((a, b) => a.offset - b.offset || a.bytes - b.bytes);
  let end = dataBegin;
  let previous = 'the header';
  for (const tensor of tensors) {
    if (tensor.offset !== end) {
      const how = tensor.offset < end ? 'overlaps' : 'leaves a gap after';
      throw rangeError(path, `tensor ${tensor.name} at byte ${tensor.offset} ${how} ${previous}, which ends at ${end}`);
    }
    end = tensor.offset + tensor.bytes;
    previous = `tensor ${tensor.name}`;
    if (pacer.isDue) await pacer.rest();
  }
  if (end !== fileBytes) throw rangeError(path, `${fileBytes - end} bytes after ${previous} belong to no tensor`);
}

/** A map of strings, or null as the reference reader takes it. */
function parseMetadata(value: string, path: string): Record<string, string> {
  const metadata = parseJson(value, path) ?? {};
  const isMap = typeof metadata === 'object' && metadata !== null && !Array.isArray(metadata);
  if (!isMap || !Object.values(metadata).every((item) => typeof item === 'string')) {
    throw headerError(path, `${METADATA} is not a map of strings`);
  }
  return metadata as Record<string, string>;
}

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const COMMA = 0x2c;
const COLON = 0x3a;
const OPEN = 0x7b;
const CLOSE = 0x7d;

/** Walks the entries of one JSON object in UTF-8; the values come as text. */
class ObjectScanner {
  private at = 0;
  private isFirst = true;

  constructor(
    private readonly text: Buffer,
    private readonly path: string,
  ) {}

  /** The next key, or undefined after the last; then only white space may follow. */
  nextKey(): string | undefined {
    if (this.isFirst) this.expect(OPEN, 'an object');
    this.skipSpace();
    if (this.text[this.at] === CLOSE) {
      this.at++;
      this.skipSpace();
      if (this.at !== this.text.length) throw this.fail('text after the object');
      return undefined;
    }
    if (!this.isFirst) this.expect(COMMA, 'a comma');
    this.isFirst = false;
    this.skipSpace();
    const begin = this.at;
    this.skipString();
    const key = this.text.toString('utf8', begin + 1, this.at - 1);
    const name = isPlain(key) ? key : String(parseJson(this.text.toString('utf8', begin, this.at), this.path));
    this.expect(COLON, 'a colon');
    return name;
  }

  /** The text of the value at the cursor. Only its extent is checked here. */
  value(): string {
    this.skipSpace();
    const begin = this.at;
    let depth = 0;
    for (; this.at < this.text.length; this.at++) {
      const byte = this.text[this.at]!;
      if (byte === QUOTE) {
        this.skipString();
        this.at--;
      } else if (byte === OPEN || byte === 0x5b) {
        depth++;
      } else if (byte === CLOSE || byte === 0x5d) {
        if (depth === 0) break;
        depth--;
      } else if (byte === COMMA && depth === 0) {
        break;
      }
    }
    if (depth !== 0 || this.at === begin) throw this.fail('a value that never ends');
    return this.text.toString('utf8', begin, this.at).trimEnd();
  }

  private skipString(): void {
    if (this.text[this.at] !== QUOTE) throw this.fail('no string where one must be');
    for (this.at++; this.at < this.text.length; this.at++) {
      const byte = this.text[this.at]!;
      if (byte === BACKSLASH) this.at++;
      else if (byte === QUOTE) {
        this.at++;
        return;
      }
    }
    throw this.fail('a string that never ends');
  }

  private skipSpace(): void {
    for (; this.at < this.text.length; this.at++) {
      const byte = this.text[this.at]!;
      if (byte !== 0x20 && byte !== 0x0a && byte !== 0x0d && byte !== 0x09) return;
    }
  }

  private expect(byte: number, what: string): void {
    this.skipSpace();
    if (this.text[this.at] !== byte) throw this.fail(`not ${what}`);
    this.at++;
  }

  private fail(what: string): OpenLoraError {
    return headerError(this.path, `the header is not JSON: ${what} at byte ${this.at}`);
  }
}

/** Needs no JSON.parse: neither escapes nor control characters. */
function isPlain(text: string): boolean {
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code === BACKSLASH || code < 0x20) return false;
  }
  return true;
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0 && !Object.is(value, -0);
}

function parseJson(text: string, path: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch (cause) {
    throw new OpenLoraError('ERR_SAFETENSORS_HEADER', `${path}: the header is not JSON`, { path }, cause);
  }
}

/** A value in a message, cut to a bearable length. */
function show(value: unknown): string {
  const text = JSON.stringify(value) ?? 'missing';
  return text.length > 80 ? `${text.slice(0, 77)}...` : text;
}

function error(kind: string, path: string, message: string): OpenLoraError {
  return new OpenLoraError(`ERR_SAFETENSORS_${kind}`, `${path}: ${message}`, { path });
}
const headerError = (path: string, message: string) => error('HEADER', path, message);
const truncated = (path: string, message: string) => error('TRUNCATED', path, message);
const shapeError = (path: string, message: string) => error('SHAPE', path, message);
const rangeError = (path: string, message: string) => error('RANGE', path, message);
