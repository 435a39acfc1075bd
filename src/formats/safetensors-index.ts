// The index of a checkpoint in several safetensors files, as transformers writes it: `weight_map` says of each tensor in
// which file beside the index it is.

import { join } from 'node:path';
import { OpenLoraError } from '../errors.js';
import { isJsonObject, readJsonObject } from './json.js';

export interface SafetensorsIndex {
  /** Of the index file, in messages. */
  name: string;
  /** In the order of their names. */
  files: string[];
  /** Tensor → file. */
  fileOf: Map<string, string>;
}

/** `index`: it is malformed or disagrees with its files; `files`: one of them is missing. */
export interface IndexCodes {
  index: string;
  files: string;
}

/** Throws `codes`. `present`: the names in `folder`. */
export async function readSafetensorsIndex(
  folder: string,
  name: string,
  present: readonly string[],
  codes: IndexCodes,
): Promise<SafetensorsIndex> {
  const map = (await readJsonObject(join(folder, name), codes.index))?.weight_map;
  if (!isJsonObject(map) || !Object.values(map).every((file) => typeof file === 'string')) {
    throw new OpenLoraError(codes.index, `${name}: weight_map is not a map of file names`);
  }
  const fileOf = new Map(Object.entries(map as Record<string, string>));
  const files = [...new Set(fileOf.values())].sort();
  for (const file of files) {
    // A name with a separator could reach outside the folder.
    if (/[/\\]/.test(file) || file === '..')
      throw new OpenLoraError(codes.index, `${name} names ${file}, not a file beside it`);
    if (!present.includes(file))
      throw new OpenLoraError(codes.files, `${name} names ${file}, which isn't there`, { file });
  }
  if (files.length === 0) throw new OpenLoraError(codes.index, `${name}: weight_map is empty`);
  return { name, files, fileOf };
}

/** Whether the files hold the tensors that the index says, each in its file: `found` for each, then `finish`. */
export class IndexCheck {
  private readonly lost: Set<string>;

  constructor(
    private readonly index: SafetensorsIndex,
    private readonly codes: IndexCodes,
  ) {
    this.lost = new Set(index.fileOf.keys());
  }

  found(tensor: string, file: string): void {
    const { name, fileOf } = this.index;
    if (fileOf.get(tensor) !== file) {
      const other = fileOf.get(tensor) ?? 'none';
      throw new OpenLoraError(this.codes.index, `${tensor} is in ${file}, its file in ${name} is ${other}`);
    }
    this.lost.delete(tensor);
  }

  finish(): void {
    const [tensor] = this.lost;
    if (tensor === undefined) return;
    throw new OpenLoraError(this.codes.index, `${this.index.name} names the tensor ${tensor}, which its file lacks`);
  }
}
