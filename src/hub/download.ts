// Files of the hub into the cache, in the layout that huggingface_hub and transformers share:
//
//     models--org--name/blobs/<etag>             the content; `<etag>.incomplete` while it arrives
//     models--org--name/snapshots/<commit>/path  a link to the blob
//     models--org--name/refs/<revision>          the commit

import { createHash, type Hash } from 'node:crypto';
import { createReadStream, createWriteStream } from 'node:fs';
import { copyFile, mkdir, rename, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { dirname, join, relative } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { OpenLoraError } from '../errors.js';
import { openFile, type HubRepo } from './client.js';
import type { HubFile } from './files.js';

const ATTEMPTS = 4;
const RETRY_MS = 500;
const RETRY_MS_MAX = 8_000;

interface CacheFolders {
  blobs: string;
  snapshot: string;
}

export interface DownloadedFile {
  path: string;
  bytes: number;
  /** Of these, bytes that were there from an earlier run. */
  resumedBytes: number;
  /** Whether nothing had to be fetched. */
  isCached: boolean;
}

export interface DownloadOptions {
  /** Gets what there is so far of all files. */
  onBytes?: (path: string, bytes: number) => void;
  /** Of a file that makes no progress. Default: 4. */
  attempts?: number;
}

export interface Snapshot {
  /** Of the repository in the cache. */
  storage: string;
  /** With the files, or links to them. */
  path: string;
  files: DownloadedFile[];
}

/**
 * Fetches what is missing of some files of a repository. Every file is compared with its digest before it gets its name
 * (ERR_HUB_DIGEST); what broke off stays, and the next call goes on with it. Rejects with the codes of client.ts.
 */
export async function downloadSnapshot(
  repo: HubRepo,
  commit: string,
  files: readonly HubFile[],
  cache: string,
  { onBytes = () => undefined, attempts = ATTEMPTS }: DownloadOptions = {},
): Promise<Snapshot> {
  const storage = join(cache, `models--${repo.name.replace('/', '--')}`);
  const folders = { blobs: join(storage, 'blobs'), snapshot: join(storage, 'snapshots', commit) };
  const done: DownloadedFile[] = [];
  let before = 0;
  // One at a time, the small ones first: a repository that can't be used is found out before its weights arrive.
  for (const file of [...files].sort((a, b) => a.size - b.size)) {
    const report = (bytes: number) => onBytes(file.path, before + bytes);
    done.push(await downloadToCache(repo, commit, file, folders, { report, attempts }));
    before += file.size;
  }
  return { storage, path: folders.snapshot, files: done };
}

interface FileOptions {
  /** Gets what it has so far. */
  report: (bytes: number) => void;
  attempts: number;
}

async function downloadToCache(
  repo: HubRepo,
  commit: string,
  file: HubFile,
  folders: CacheFolders,
  options: FileOptions,
): Promise<DownloadedFile> {
  const blob = join(folders.blobs, file.etag);
  const link = join(folders.snapshot, file.path);
  const done = { path: file.path, bytes: file.size };
  if ((await sizeOf(link)) === file.size) {
    options.report(file.size);
    return { ...done, resumedBytes: 0, isCached: true };
  }
  await mkdir(folders.blobs, { recursive: true });
  await mkdir(dirname(link), { recursive: true });
  const isCached = (await sizeOf(blob)) === file.size;
  const resumedBytes = isCached ? 0 : await fetchBlob(repo, commit, file, blob, options);
  options.report(file.size);
  await linkTo(blob, link);
  return { ...done, resumedBytes, isCached };
}

/** Returns how many bytes an earlier run had left. A dropped connection is taken up again where it broke. */
async function fetchBlob(
  repo: HubRepo,
  commit: string,
  file: HubFile,
  blob: string,
  { report, attempts }: FileOptions,
): Promise<number> {
  const incomplete = `${blob}.incomplete`;
  let found = (await sizeOf(incomplete)) ?? 0;
  if (found > file.size) {
    await rm(incomplete);
    found = 0;
  }
  for (let attempt = 1; ; attempt++) {
    const before = (await sizeOf(incomplete)) ?? 0;
    try {
      if (file.size === 0) await writeFile(incomplete, '');
      else if (before < file.size) await append(repo, commit, file, incomplete, before, report);
      break;
    } catch (error) {
      const after = (await sizeOf(incomplete)) ?? 0;
      if (after > before) attempt = 1;
      if (repo.signal.aborted || !isTransient(error) || attempt === attempts) throw error;
      await sleep(Math.min(RETRY_MS_MAX, RETRY_MS * attempt), undefined, { signal: repo.signal }).catch(() =>
        repo.signal.throwIfAborted(),
      );
    }
  }
  const hex = await digestOf(incomplete, file);
  if (hex !== file.digest.hex) {
    await rm(incomplete);
    throw new OpenLoraError(
      'ERR_HUB_DIGEST',
      `${file.path}: the content hashes to ${hex.slice(0, 12)}…, the hub says ${file.digest.hex.slice(0, 12)}…; it was thrown away`,
    );
  }
  await rename(incomplete, blob);
  return found;
}

async function append(
  repo: HubRepo,
  commit: string,
  file: HubFile,
  path: string,
  offset: number,
  onBytes: (bytes: number) => void,
): Promise<void> {
  const stream = Readable.fromWeb(await openFile(repo, commit, file.path, offset));
  let bytes = offset;
  stream.on('data', (chunk: Uint8Array) => {
    bytes += chunk.length;
    onBytes(Math.min(bytes, file.size));
    // More than was promised is not kept until it ends.
    if (bytes > file.size) stream.destroy(new TransientError(`${file.path}: got more than its ${file.size} bytes`));
  });
  try {
    await pipeline(stream, createWriteStream(path, { flags: 'a' }), { signal: repo.signal });
  } catch (error) {
    // A proxy that ignores ranges sends the whole file again.
    if (bytes > file.size) await rm(path, { force: true });
    throw error;
  }
  const size = (await sizeOf(path)) ?? 0;
  if (size < file.size)
    throw new TransientError(`${file.path}: the connection ended after ${size} of ${file.size} bytes`);
}

class TransientError extends Error {}

/** Refusals are final; a broken connection isn't. */
function isTransient(error: unknown): boolean {
  if (OpenLoraError.is(error)) return ['ERR_HUB_UNREACHABLE', 'ERR_HUB', 'ERR_HUB_RATE'].includes(error.code);
  const code = (error as NodeJS.ErrnoException | null)?.code;
  return !(typeof code === 'string' && /^E(NOSPC|ACCES|ROFS|PERM|DQUOT|MFILE)$/.test(code));
}

/** Git hashes a small file with a header before its content. */
async function digestOf(path: string, file: HubFile): Promise<string> {
  const hash: Hash = createHash(file.digest.kind === 'git' ? 'sha1' : 'sha256');
  const size = (await stat(path)).size;
  if (file.digest.kind === 'git') hash.update(`blob ${size}\0`);
  await pipeline(createReadStream(path), hash);
  return hash.digest('hex');
}

async function linkTo(blob: string, link: string): Promise<void> {
  await rm(link, { force: true });
  try {
    await symlink(relative(dirname(link), blob), link);
  } catch {
    // File systems without links hold the content twice, as huggingface_hub does there.
    await copyFile(blob, link);
  }
}

async function sizeOf(path: string): Promise<number | undefined> {
  try {
    return (await stat(path)).size;
  } catch {
    return undefined;
  }
}
