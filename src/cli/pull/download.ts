// One file of the hub into the cache, in the layout that huggingface_hub and transformers share:
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
import { CliError } from '../errors.js';
import type { HubFile } from './files.js';
import { openFile, type HubRepo } from './hub.js';

const ATTEMPTS = 4;
const RETRY_MS = 500;

export interface CacheFolders {
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

/** Fetches what is missing of a file; `onBytes` gets what it has so far. */
export async function downloadToCache(
  repo: HubRepo,
  commit: string,
  file: HubFile,
  folders: CacheFolders,
  onBytes: (bytes: number) => void,
): Promise<DownloadedFile> {
  const blob = join(folders.blobs, file.etag);
  const link = join(folders.snapshot, file.path);
  const done = { path: file.path, bytes: file.size };
  if ((await sizeOf(link)) === file.size) {
    onBytes(file.size);
    return { ...done, resumedBytes: 0, isCached: true };
  }
  await mkdir(folders.blobs, { recursive: true });
  await mkdir(dirname(link), { recursive: true });
  const isCached = (await sizeOf(blob)) === file.size;
  const resumedBytes = isCached ? 0 : await fetchBlob(repo, commit, file, blob, onBytes);
  onBytes(file.size);
  await linkTo(blob, link);
  return { ...done, resumedBytes, isCached };
}

/** Returns how many bytes an earlier run had left. A dropped connection is taken up again where it broke. */
async function fetchBlob(
  repo: HubRepo,
  commit: string,
  file: HubFile,
  blob: string,
  onBytes: (bytes: number) => void,
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
      else if (before < file.size) await append(repo, commit, file, incomplete, before, onBytes);
      break;
    } catch (error) {
      const after = (await sizeOf(incomplete)) ?? 0;
      if (after > before) attempt = 1;
      if (repo.signal.aborted || !isTransient(error) || attempt === ATTEMPTS) throw error;
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS * attempt));
    }
  }
  const hex = await digestOf(incomplete, file);
  if (hex !== file.digest.hex) {
    await rm(incomplete);
    throw new CliError(
      'ERR_HUB_DIGEST',
      `${file.path}: the content hashes to ${hex.slice(0, 12)}…, the hub says ${file.digest.hex.slice(0, 12)}…; it was thrown away`,
      'the same command again',
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
  });
  await pipeline(stream, createWriteStream(path, { flags: 'a' }), { signal: repo.signal });
  const size = (await sizeOf(path)) ?? 0;
  if (size > file.size) {
    // A proxy that ignores ranges sent the whole file again.
    await rm(path);
    throw new TransientError(`${file.path}: got ${size} bytes of ${file.size}`);
  }
  if (size < file.size)
    throw new TransientError(`${file.path}: the connection ended after ${size} of ${file.size} bytes`);
}

class TransientError extends Error {}

/** Refusals are final; a broken connection isn't. */
function isTransient(error: unknown): boolean {
  if (error instanceof CliError) return error.code === 'ERR_HUB_UNREACHABLE' || error.code === 'ERR_HUB';
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
