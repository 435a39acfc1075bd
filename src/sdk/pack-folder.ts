// Where packed adapters are kept: beside the packed weights, or for as long as the base lives.

import { statfs } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { makeSpoolFolder } from './spool-folder.js';

export interface PackFolder {
  /** Empty: none can be made, and each load packs the adapter anew. */
  path: string;
  /** Bytes that its disk has free. */
  diskFree: number;
  warnings: { code: string; message: string }[];
  /** Removes it if it is this base's alone. Never rejects; may be called again. */
  remove: () => Promise<void>;
}

export async function openPacks({ cacheDir }: { cacheDir: string }): Promise<PackFolder> {
  if (cacheDir !== '') {
    // The addon makes it when the first adapter is registered.
    const path = join(cacheDir, 'adapters');
    return { path, diskFree: await freeBytes(path), warnings: [], remove: () => Promise.resolve() };
  }
  try {
    const { path, remove } = await makeSpoolFolder('packs');
    return { path, diskFree: await freeBytes(path), warnings: [], remove: () => remove().catch(() => undefined) };
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    const message = `packed adapters can't be kept, so they are packed anew for each load: ${why}`;
    return {
      path: '',
      diskFree: 0,
      warnings: [{ code: 'WARN_ADAPTER_CACHE', message }],
      remove: () => Promise.resolve(),
    };
  }
}

/** Of the disk on which `path` is, or would be; no limit where that can't be told. */
async function freeBytes(path: string): Promise<number> {
  for (let at = path; ; at = dirname(at)) {
    try {
      const { bavail, bsize } = await statfs(at);
      return bavail * bsize;
    } catch {
      if (dirname(at) === at) return Infinity;
    }
  }
}
