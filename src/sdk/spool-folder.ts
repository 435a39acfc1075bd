// Private folders for bytes that were given in memory, and for what lives no longer than a base. Each is
// `openlora-<use>-<pid namespace>-<pid>-<random>` under the
// system's folder for temporary files, for this user alone (0700), and has a file `owner` that its thread keeps open:
// threads that were terminated and processes that were killed lose it, so whoever makes the next folder can tell what
// they left, and removes it. Until then what is left is as private as it was.

import { closeSync, openSync, rmSync } from 'node:fs';
import { lstat, mkdtemp, readdir, readlink, realpath, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const NAME = /^openlora-(?:spool|packs)-(\w+)-(\d+)-\w{6}$/;
const OWNER = 'owner';
/** A folder that has no owner's file may just have been made. */
const YOUNG_MS = 60_000;

/** Folders of this thread, for its exit. */
const open = new Set<string>();

export interface SpoolFolder {
  path: string;
  /** Removes the folder and all that is in it. */
  remove: () => Promise<void>;
}

/** `spool`: what was given in memory; `packs`: packed adapters. */
export async function makeSpoolFolder(use: 'spool' | 'packs' = 'spool'): Promise<SpoolFolder> {
  const parent = await realpath(tmpdir());
  const namespace = await pidNamespace();
  await sweep(parent, namespace).catch(() => undefined);
  const path = await mkdtemp(join(parent, `openlora-${use}-${namespace}-${process.pid}-`));
  if (open.size === 0) process.on('exit', removeAll);
  open.add(path);
  let owner: number | undefined = openSync(join(path, OWNER), 'wx', 0o600);
  return {
    path,
    remove: async () => {
      await rm(path, { recursive: true, force: true });
      open.delete(path);
      if (open.size === 0) process.off('exit', removeAll);
      if (owner !== undefined) closeSync(owner);
      owner = undefined;
    },
  };
}

function removeAll(): void {
  for (const path of open) {
    try {
      rmSync(path, { recursive: true, force: true });
    } catch {
      // The next one to make a folder tries again.
    }
  }
}

/** Removes what threads and processes left that are gone. */
async function sweep(parent: string, namespace: string): Promise<void> {
  for (const name of await readdir(parent)) {
    const [, itsNamespace, pid] = NAME.exec(name) ?? [];
    const path = join(parent, name);
    // Process ids of another namespace, a container's say, mean nothing here.
    if (itsNamespace !== namespace || open.has(path)) continue;
    const isLeft = await isAbandoned(path, Number(pid)).catch(() => false);
    if (isLeft) await rm(path, { recursive: true, force: true }).catch(() => undefined);
  }
}

async function isAbandoned(path: string, pid: number): Promise<boolean> {
  const folder = await lstat(path);
  if (!folder.isDirectory() || folder.uid !== process.getuid?.()) return false;
  const owner = join(path, OWNER);
  const hasOwner = await stat(owner).then(
    () => true,
    () => false,
  );
  if (!hasOwner && Date.now() - folder.mtimeMs < YOUNG_MS) return false;
  if (!isRunning(pid)) return true;
  // Throws, which means no, where there is no /proc or the process is not ours to look at.
  const descriptors = `/proc/${pid}/fd`;
  for (const descriptor of await readdir(descriptors)) {
    const target = await readlink(join(descriptors, descriptor)).catch(() => '');
    if (target === owner) return false;
  }
  return true;
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== 'ESRCH';
  }
}

/** The number that Linux gives it; elsewhere there is one. */
async function pidNamespace(): Promise<string> {
  const link = await readlink('/proc/self/ns/pid').catch(() => '');
  return /\d+/.exec(link)?.[0] ?? 'none';
}
