import { resolve } from 'node:path';
import type { AdapterParts } from './adapter-folder.js';
import { FOLDER_WORKER, type BaseDescription, type CheckedAdapter, type FolderRequests } from './folder-protocol.js';
import { WorkerClient } from './worker-client.js';

export type { BaseDescription, CheckedAdapter };

interface AdapterRules {
  /** Refuse an adapter that names another base; else that is a warning. */
  strictBase: boolean;
  signal: AbortSignal;
}

/**
 * A base folder that was read, and what reads its adapters: in a worker thread, which doesn't keep the process alive while it
 * is idle. Calls reject with ERR_ABORTED by their signal, with ERR_FOLDER_WORKER when the thread dies (the next one
 * starts another), and with ERR_CLOSED after `dispose`.
 */
export interface FolderReader {
  readonly base: BaseDescription;
  /** Rejects as {@link readAdapterFolder} does. `vocabulary`: tokens of the base's tokenizer. */
  readAdapter(path: string, rules: AdapterRules & { vocabulary: number }): Promise<CheckedAdapter>;
  /** Rejects as {@link checkAdapter} does. */
  checkAdapter(parts: AdapterParts, rules: AdapterRules): Promise<CheckedAdapter>;
  /** Ends the thread. */
  dispose(): Promise<void>;
}

/** Reads a base folder as {@link readBaseFolder} does. */
export async function openFolderReader(path: string, o: { signal?: AbortSignal } = {}): Promise<FolderReader> {
  const client = new WorkerClient<FolderRequests>(FOLDER_WORKER, { path: resolve(path) });
  try {
    const base = await client.open(o.signal);
    return {
      base,
      readAdapter: (folder, { signal, ...rules }) =>
        client.request('readAdapter', { path: resolve(folder), ...rules }, signal),
      checkAdapter: (parts, { signal, ...rules }) => client.request('checkAdapter', { parts, ...rules }, signal),
      dispose: () => client.close(),
    };
  } catch (error) {
    await client.close();
    throw error;
  }
}
