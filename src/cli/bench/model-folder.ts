// The temporary folder that holds a base and adapters with random weights while they are measured.

import { mkdtempSync, rmSync } from 'node:fs';
import { statfs } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { CliError, Interrupted } from '../errors.js';
import type { Io } from '../io.js';
import { ProgressBar } from '../progress.js';
import { formatBytes, shortPath } from '../text.js';
import { adapterBytes, baseBytes, writeAdapter, writeBase, type FileDtype } from './random-weights.js';
import type { ModelSettings } from './settings.js';

/** Tokenizer, configs and headers: more than a vocabulary of 200,000 takes. */
const REST_BYTES = 16 * 2 ** 20;

export interface ModelFolder {
  base: string;
  /** One folder each. */
  adapters: string[];
  adapterBytes: number;
  /** For packed weights; not there yet. */
  cache: string;
}

/** Writes it, calls `use`, and removes it whatever happens, also when the process is made to end. */
export async function withModelFolder<T>(
  settings: ModelSettings,
  io: Io,
  use: (folder: ModelFolder) => Promise<T>,
): Promise<T> {
  const { shape, rank, folder: given } = settings;
  const dtype: FileDtype = settings.dtype === 'f32' ? 'f32' : 'bf16';
  const each = adapterBytes(shape, rank, dtype);
  const bytes = baseBytes(shape, dtype) + settings.adapters * each;
  const parent = given ?? tmpdir();
  await checkSpace(parent, bytes + baseBytes(shape, dtype) + REST_BYTES); // and packed weights, as large at most
  io.stderr.line(`writing ${formatBytes(bytes)} of random weights to ${shortPath(parent)}, removed at the end`);
  const root = mkdtempSync(join(parent, 'openlora-bench-'));
  const remove = () => rmSync(root, { recursive: true, force: true });
  process.once('exit', remove);
  const bar = new ProgressBar(io.stderr);
  let written = 0;
  const onBytes = (more: number) => bar.update('writing', (written += more), bytes);
  const options = { dtype, signal: io.signal, onBytes };
  try {
    const base = join(root, 'base');
    await writeBase(base, shape, options);
    const adapters = Array.from({ length: settings.adapters }, (_, i) => join(root, `adapter-${i}`));
    for (const [i, path] of adapters.entries()) await writeAdapter(path, shape, rank, i, options);
    bar.clear();
    return await use({ base, adapters, adapterBytes: each, cache: join(root, 'cache') });
  } catch (error) {
    throw io.signal.aborted ? new Interrupted() : error;
  } finally {
    bar.clear();
    process.off('exit', remove);
    remove();
  }
}

async function checkSpace(parent: string, bytes: number): Promise<void> {
  const { bavail, bsize } = await statfs(parent);
  if (bavail * bsize >= bytes) return;
  const [wanted, free] = [formatBytes(bytes), formatBytes(bavail * bsize)];
  throw new CliError('ERR_BENCH_DISK', `the weights take ${wanted}, and ${shortPath(parent)} has ${free} left`);
}
