// Folders that are copied and damaged on purpose.

import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export const ADAPTER_WEIGHTS = 'adapter_model.safetensors';
export const BASE_WEIGHTS = 'model.safetensors';

export interface Entry {
  dtype: string;
  shape: number[];
  data_offsets: [number, number];
}
export type Header = Record<string, Entry>;

const root = mkdtempSync(join(tmpdir(), 'openlora-bad-'));
export const removeDamaged = () => rmSync(root, { recursive: true, force: true });

export const newFolder = () => mkdtempSync(join(root, 'folder-'));

export function copyOf(folder: string): string {
  const copy = newFolder();
  cpSync(folder, copy, { recursive: true });
  return copy;
}

/** Writes an object as JSON, undefined not at all (it removes the file). */
export function put(folder: string, name: string, content: string | Buffer | object | undefined): string {
  const path = join(folder, name);
  rmSync(path, { recursive: true, force: true });
  if (content === undefined) return folder;
  const isData = typeof content === 'string' || Buffer.isBuffer(content);
  writeFileSync(path, isData ? content : JSON.stringify(content));
  return folder;
}

export function putFolder(folder: string, name: string): string {
  put(folder, name, undefined);
  mkdirSync(join(folder, name));
  return folder;
}

/** Sets keys of a JSON file, removes those that are undefined; makes the file if there is none. */
export function patch(folder: string, name: string, changes: Record<string, unknown>): string {
  let old: object = {};
  try {
    old = JSON.parse(readFileSync(join(folder, name), 'utf8')) as object;
  } catch {
    // None yet.
  }
  return put(folder, name, { ...old, ...changes });
}

export interface Parts {
  header: Header;
  data: Buffer;
}

export function split(file: Buffer): Parts {
  const length = Number(file.readBigUInt64LE());
  const header = JSON.parse(file.toString('utf8', 8, 8 + length)) as Header & { __metadata__?: unknown };
  delete header.__metadata__;
  return { header, data: Buffer.from(file.subarray(8 + length)) };
}

export function assemble(header: string | Buffer, data: Buffer): Buffer {
  const text = Buffer.from(header);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  return Buffer.concat([length, text, data]);
}

/** Another file with the same tensors, after `change` has had its way with names, shapes, offsets and data. */
export const withHeader = (change: (parts: Parts) => void) => (file: Buffer) => {
  const parts = split(file);
  change(parts);
  return assemble(JSON.stringify(parts.header), parts.data);
};

/** Another file whose header says exactly what its data are: tensors may come, go and change their names and shapes. */
export const withTensors = (change: (tensors: Record<string, { shape: number[]; data: Buffer }>) => void) =>
  function rewrite(file: Buffer): Buffer {
    const { header, data } = split(file);
    const tensors = Object.fromEntries(
      Object.entries(header).map(
        ([
          name,
          {
            shape,
            data_offsets: [begin, end],
          },
        ]) => [name, { shape, data: data.subarray(begin, end) }],
      ),
    );
    change(tensors);
    let end = 0;
    const made: Header = {};
    for (const [name, tensor] of Object.entries(tensors)) {
      const begin = end;
      end += tensor.data.length;
      made[name] = { dtype: 'F32', shape: tensor.shape, data_offsets: [begin, end] };
    }
    return assemble(JSON.stringify(made), Buffer.concat(Object.values(tensors).map((tensor) => tensor.data)));
  };

/** The same values in bfloat16, one of them replaced. */
export function asBf16(file: Buffer, at: number, bits: number): Buffer {
  const { header, data } = split(file);
  const half = Buffer.alloc(data.length / 2);
  for (let i = 0; i < half.length / 2; i++) half.writeUInt16LE(data.readUInt16LE(4 * i + 2), 2 * i);
  half.writeUInt16LE(bits, at < 0 ? half.length + 2 * at : 2 * at);
  for (const entry of Object.values(header)) {
    entry.dtype = 'BF16';
    entry.data_offsets = [entry.data_offsets[0] / 2, entry.data_offsets[1] / 2];
  }
  return assemble(JSON.stringify(header), half);
}

/** Writes a copy of `folder` with one of its files rewritten. */
export function rewritten(folder: string, name: string, change: (file: Buffer) => Buffer): string {
  const copy = copyOf(folder);
  writeFileSync(join(copy, name), change(readFileSync(join(copy, name))));
  return copy;
}

/** The value of one float32 of one tensor. */
export const withValue = (tensor: RegExp, at: 'first' | 'last', value: number) =>
  withHeader(({ header, data }) => {
    const [, { data_offsets: offsets }] = Object.entries(header).find(([name]) => tensor.test(name))!;
    data.writeFloatLE(value, at === 'first' ? offsets[0] : offsets[1] - 4);
  });

const first = (header: Header) => Object.values(header)[0]!;
const second = (header: Header) => Object.values(header)[1]!;

/** How a safetensors file can be damaged so that its header alone tells: the same for bases and adapters. */
export const FILE_DAMAGE: [name: string, code: string, says: RegExp, change: (file: Buffer) => Buffer][] = [
  ['an empty file', 'TRUNCATED', /0 bytes.*takes 8/, () => Buffer.alloc(0)],
  ['seven bytes', 'TRUNCATED', /7 bytes.*takes 8/, (file) => file.subarray(0, 7)],
  ['a file cut in its header', 'TRUNCATED', /header is \d+ bytes, the file 100/, (file) => file.subarray(0, 100)],
  ['a file cut in half', 'TRUNCATED', /ends at byte \d+, the file at \d+/, (file) => file.subarray(0, file.length / 2)],
  ['a file that lacks its last byte', 'TRUNCATED', /ends at byte/, (file) => file.subarray(0, -1)],
  ['a byte too many', 'RANGE', /1 bytes after .* belong to no tensor/, (file) => Buffer.concat([file, Buffer.alloc(1)])],
  ['zeros', 'HEADER', /header length is 0, not in/, (file) => Buffer.alloc(file.length)],
  ['ones', 'HEADER', /18446744073709551615, not in/, (file) => Buffer.alloc(file.length, 255)],
  ['another format', 'HEADER', /not in \[2, 100000000\]/, () => Buffer.from('PK\u0003\u0004 a pickle in a zip file')],
  ['a header that is no JSON', 'HEADER', /not JSON/, (file) => assemble('{"a": nonsense}', split(file).data)],
  ['a header that is a list', 'HEADER', /not an object/, (file) => assemble('[1, 2]', split(file).data)],
  ['a header that never ends', 'HEADER', /never ends/, (file) => assemble('{"a": {"dtype"', split(file).data)],
  ['a header in Latin-1', 'HEADER', /not UTF-8/, (file) => assemble(Buffer.from('{"\xe9": 1}', 'latin1'), split(file).data)],
  ['a tensor twice', 'HEADER', /is there twice/, (file) => {
    const { header, data } = split(file);
    const text = JSON.stringify(header);
    const [name, entry] = Object.entries(header)[0]!;
    return assemble(`${text.slice(0, -1)},${JSON.stringify(name)}:${JSON.stringify(entry)}}`, data);
  }],
  ['reversed offsets', 'RANGE', /are reversed/, withHeader(({ header }) => first(header).data_offsets.reverse())],
  ['overlapping tensors', 'RANGE', /overlaps/, withHeader(({ header }) => {
    const [begin, end] = second(header).data_offsets;
    second(header).data_offsets = [begin - 4, end - 4];
  })],
  ['a gap', 'RANGE', /leaves a gap/, withHeader((parts) => {
    for (const entry of Object.values(parts.header)) entry.data_offsets = [entry.data_offsets[0] + 8, entry.data_offsets[1] + 8];
    parts.data = Buffer.concat([Buffer.alloc(8), parts.data]);
  })],
  ['offsets beyond the file', 'TRUNCATED', /ends at byte/, withHeader(({ header }) => {
    const [begin, end] = first(header).data_offsets;
    first(header).data_offsets = [2 ** 40, 2 ** 40 + end - begin];
  })],
  ['offsets of 2^53', 'RANGE', /not two byte offsets/, withHeader(({ header }) => (first(header).data_offsets = [2 ** 53, 2 ** 53 + 8]))],
  ['offsets that wrap 64 bits', 'RANGE', /not two byte offsets/, (file) => {
    const { header, data } = split(file);
    const { data_offsets: offsets } = first(header);
    return assemble(JSON.stringify(header).replace(JSON.stringify(offsets), '[18446744073709551608,64]'), data);
  }],
  ['negative offsets', 'RANGE', /not two byte offsets/, withHeader(({ header }) => (first(header).data_offsets = [-4, 4]))],
  ['one offset', 'RANGE', /not two byte offsets/, withHeader(({ header }) => (first(header).data_offsets = [0] as never))],
  ['a shape larger than its bytes', 'RANGE', /span \d+ bytes, F32 .* takes \d+/, withHeader(({ header }) => (first(header).shape[1]! *= 2))],
  ['a shape of zero rows', 'RANGE', /takes 0/, withHeader(({ header }) => (first(header).shape[0] = 0))],
  ['a shape that overflows', 'SHAPE', /overflows/, withHeader(({ header }) => (first(header).shape = [2 ** 31, 2 ** 31, 4]))],
  ['a negative shape', 'SHAPE', /not a list of non-negative/, withHeader(({ header }) => (first(header).shape[0] = -1))],
  ['half a row', 'SHAPE', /not a list of non-negative/, withHeader(({ header }) => (first(header).shape[0] = 1.5))],
  ['a shape that is text', 'SHAPE', /not a list of non-negative/, withHeader(({ header }) => (first(header).shape = '3' as never))],
  ['a dtype that the format does not have', 'DTYPE', /unknown dtype F31; known are/, withHeader(({ header }) => (first(header).dtype = 'F31'))],
]; // prettier-ignore
