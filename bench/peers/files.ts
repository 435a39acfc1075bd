// The temporary folder with everything that the engines load: one checkpoint, one GGUF file of each format, adapters of both
// forms. Removed at the end, whatever happens.

import { mkdtempSync, rmSync } from 'node:fs';
import { statfs } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { adapterBytes, baseBytes, writeAdapter, writeBase } from '../../src/cli/bench/random-weights.js';
import { namedShape } from '../../src/cli/bench/shapes.js';
import { formatBytes } from '../../src/cli/text.js';
import { ggufBytes } from './gguf.js';
import { adapterTensors, modelTensors, writeLora, writeModel, type GgufFormat } from './gguf-model.js';
import type { Contestant, Sizes, Work } from './work.js';

/** Tokenizers, headers; and what openlora packs once into files of its own: as much as the weights. */
const REST_BYTES = 64 * 2 ** 20;
const DTYPE = 'bf16';

export type Paths = (contestant: Contestant) => Pick<Work, 'base' | 'adapters'>;

/** Writes what the contestants need, calls `use` and removes it. */
export async function withFiles<T>(
  contestants: readonly Contestant[],
  { model, adapters: count, rank }: Pick<Sizes, 'model' | 'adapters' | 'rank'>,
  options: { folder: string | undefined; signal: AbortSignal; say: (text: string) => void },
  use: (paths: Paths) => Promise<T>,
): Promise<T> {
  const shape = namedShape(model);
  const { signal, say } = options;
  const formats = contestants.filter(({ engine }) => engine === 'llama.cpp').map(({ format }) => format as GgufFormat);
  const hasCheckpoint = contestants.some(({ engine }) => engine !== 'llama.cpp');
  const bytes =
    REST_BYTES +
    (hasCheckpoint ? baseBytes(shape, DTYPE) + count * adapterBytes(shape, rank, DTYPE) : 0) +
    formats.reduce((sum, format) => sum + ggufBytes(modelTensors(shape, format)), 0) +
    (formats.length > 0 ? count * ggufBytes(adapterTensors(shape, rank)) : 0);
  const parent = options.folder ?? tmpdir();
  const { bavail, bsize } = await statfs(parent);
  if (bavail * bsize < bytes)
    throw new Error(`the weights take ${formatBytes(bytes)}, and ${parent} has ${formatBytes(bavail * bsize)} left`);
  const root = mkdtempSync(join(parent, 'openlora-peers-'));
  const remove = () => rmSync(root, { recursive: true, force: true });
  process.once('exit', remove);
  try {
    say(`writing ${formatBytes(bytes)} of random weights below ${parent}, removed at the end`);
    const [base, gguf] = [join(root, 'base'), (format: string) => join(root, `${format}.gguf`)];
    const indices = Array.from({ length: count }, (_, i) => i);
    const [folders, loras] = [indices.map((i) => join(root, `a${i}`)), indices.map((i) => join(root, `a${i}.gguf`))];
    if (hasCheckpoint) {
      await writeBase(base, shape, { dtype: DTYPE, signal });
      for (const i of indices) await writeAdapter(folders[i]!, shape, rank, i, { dtype: DTYPE, signal });
    }
    for (const format of formats) await writeModel(gguf(format), shape, format, { seed: 1, signal });
    for (const i of formats.length > 0 ? indices : [])
      await writeLora(loras[i]!, shape, rank, { seed: 100 + i, signal });
    return await use(({ engine, format }) =>
      engine === 'llama.cpp' ? { base: gguf(format), adapters: loras } : { base, adapters: folders },
    );
  } finally {
    process.off('exit', remove);
    remove();
  }
}
