// A base and thousands of small adapters with random weights on disk: in a temporary folder, or in one that is kept and
// used again.

import { linkSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { statfs } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { CliError, Interrupted } from '../errors.js';
import type { Io } from '../io.js';
import { ProgressBar } from '../progress.js';
import { formatBytes, formatCount, shortPath } from '../text.js';
import { ADAPTER_FILE, adapterBytes, baseBytes, writeAdapter, writeBase, type FileDtype } from './random-weights.js';
import type { AdaptersSettings } from './settings.js';

export const MODULES = ['q_proj', 'v_proj'] as const;
/** Of the free space, the most that is taken. */
const DISK_SHARE = 0.8;
/** Tokenizer, configs and headers; what a file takes beside its tensors. */
const REST_BYTES = 16 * 2 ** 20;
const FILE_REST_BYTES = 64 * 2 ** 10;

export interface AdaptersFolder {
  base: string;
  /** One folder each. */
  adapters: string[];
  /** Tensors of each, on disk. */
  adapterBytes: number;
  /** For packed weights, and for packed adapters. */
  cache: string;
  /** More than all adapters take when they are packed: none is removed for another. */
  packBytesMax: number;
}

const packsOf = (cache: string) => join(cache, 'adapters');

/** Those of packed adapters that are there. */
export function packFiles(cache: string): string[] {
  const packs = packsOf(cache);
  return filesIn(packs).map((name) => join(packs, name));
}

/** From then on the first use of each adapter packs it, as if nobody had used it. Bases that use the cache are closed before. */
export function removePacks(cache: string): void {
  rmSync(packsOf(cache), { recursive: true, force: true });
}

/** Another folder with the same packed weights: links, so that their memory is shared. */
export function cacheWithoutPacks({ cache }: AdaptersFolder): string {
  const other = `${cache}-without-packs`;
  rmSync(other, { recursive: true, force: true });
  mkdirSync(other, { recursive: true, mode: 0o700 });
  for (const name of filesIn(cache)) linkSync(join(cache, name), join(other, name));
  return other;
}

function filesIn(folder: string): string[] {
  try {
    const entries = readdirSync(folder, { withFileTypes: true });
    return entries.filter((entry) => entry.isFile()).map(({ name }) => name);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
}

export const adapterFile = (folder: string) => join(folder, ADAPTER_FILE);
const fileDtype = ({ dtype }: AdaptersSettings): FileDtype => (dtype === 'f32' ? 'f32' : 'bf16');

/** Writes what isn't there yet, calls `use`, and removes a temporary folder whatever happens. */
export async function withAdaptersFolder<T>(
  settings: AdaptersSettings,
  io: Io,
  use: (folder: AdaptersFolder) => Promise<T>,
): Promise<T> {
  const parent = settings.folder ?? tmpdir();
  mkdirSync(parent, { recursive: true });
  const isKept = settings.folder !== undefined;
  const root = isKept ? join(parent, nameOf(settings)) : mkdtempSync(join(parent, 'openlora-bench-'));
  const remove = () => rmSync(root, { recursive: true, force: true });
  if (!isKept) process.once('exit', remove);
  try {
    return await use(await fill(root, settings, io));
  } catch (error) {
    throw io.signal.aborted ? new Interrupted() : error;
  } finally {
    process.off('exit', remove);
    if (!isKept) remove();
  }
}

/** Of everything that the files depend on. */
function nameOf(settings: AdaptersSettings): string {
  const { shape, rank } = settings;
  const sizes = [
    shape.layers,
    shape.hidden,
    shape.heads,
    shape.kvHeads,
    shape.headDim,
    shape.intermediate,
    shape.vocab,
  ];
  return `openlora-adapters-${shape.name}-${sizes.join('-')}-r${rank}-${fileDtype(settings)}`;
}

async function fill(root: string, settings: AdaptersSettings, io: Io): Promise<AdaptersFolder> {
  const { shape, rank } = settings;
  const dtype = fileDtype(settings);
  const each = adapterBytes(shape, rank, dtype, MODULES);
  const ofBase = baseBytes(shape, dtype);
  const [base, cache] = [join(root, 'base'), join(root, 'cache')];
  const pathOf = (i: number) => join(root, 'adapters', String(i).padStart(5, '0'));
  const isThere = (i: number) => sizeOf(adapterFile(pathOf(i))) > each && isComplete(pathOf(i));
  const hasBase = isComplete(base);
  let there = 0;
  const wanted = Math.max(...settings.registered);
  removePacks(cache);
  while (there < wanted && isThere(there)) there++;
  const { bavail, bsize } = await statfs(join(root, '..'));
  // The base, and its packed weights, as large at most.
  const room = DISK_SHARE * bavail * bsize - REST_BYTES - (hasBase ? 0 : 2 * ofBase);
  const count = countFor(room, each + FILE_REST_BYTES, there, wanted);
  if (room < 0 || count < Math.min(...settings.registered)) {
    const free = formatBytes(bavail * bsize);
    throw new CliError('ERR_BENCH_DISK', `${shortPath(root)} has ${free} left, too little for the base and adapters`);
  }
  if (count < wanted)
    io.stderr.line(`the disk has room for ${formatCount(count)} adapters, not for ${formatCount(wanted)}`);
  const bytes = (hasBase ? 0 : ofBase) + Math.max(0, count - there) * each;
  if (bytes > 0)
    io.stderr.line(
      `writing ${formatBytes(bytes)} of random weights to ${shortPath(root)}, ${settings.folder ? 'kept there' : 'removed at the end'}`,
    );
  const bar = new ProgressBar(io.stderr);
  let written = 0;
  const onBytes = (more: number) => bar.update('writing', (written += more), bytes);
  const options = { dtype, signal: io.signal, onBytes, modules: MODULES };
  try {
    if (!hasBase) {
      await writeBase(base, shape, options);
      complete(base);
    }
    for (let i = there; i < count; i++) {
      await writeAdapter(pathOf(i), shape, rank, i, options);
      complete(pathOf(i));
    }
  } finally {
    bar.clear();
  }
  const adapters = Array.from({ length: count }, (_, i) => pathOf(i));
  return { base, cache, adapters, adapterBytes: each, packBytesMax: 2 * count * (each + FILE_REST_BYTES) };
}

/**
 * How many adapters of `each` bytes the disk has room for: each takes them twice, in its own file, of which `there` are there, and
 * in the packed one.
 */
export function countFor(room: number, each: number, there: number, wanted: number): number {
  return Math.max(0, Math.min(wanted, Math.floor((room + there * each) / (2 * each))));
}

const MARK = 'complete';
const complete = (folder: string) => writeFileSync(join(folder, MARK), '1');
function isComplete(folder: string): boolean {
  try {
    return readFileSync(join(folder, MARK), 'utf8') === '1';
  } catch {
    return false;
  }
}

function sizeOf(path: string): number {
  return statSync(path, { throwIfNoEntry: false })?.size ?? 0;
}
