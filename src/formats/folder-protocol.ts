// What a base asks of the thread that reads folders.

import type { AdapterSpec, Table } from '../native/binding.js';
import type { AdapterParts } from './adapter-folder.js';
import type { AdapterDescription, BaseFolder } from './types.js';
import type { WorkerKind } from './worker-client.js';

/** What stays of a base folder when its tensors are a table; names that only adapters are matched against stay in the thread. */
export type BaseDescription = Omit<BaseFolder, 'tensors' | 'modules' | 'linearModules' | 'config'> & { tensors: Table };

/** A checked adapter, ready for the engine but for its handle. */
export interface CheckedAdapter {
  spec: Omit<AdapterSpec, 'handle'>;
  info: AdapterDescription;
}

// A type, not an interface: it is a record to its client.
export type FolderRequests = {
  open: { request: { path: string }; reply: BaseDescription };
  readAdapter: {
    request: { path: string; strictBase: boolean; vocabulary: number };
    reply: CheckedAdapter;
  };
  checkAdapter: { request: { parts: AdapterParts; strictBase: boolean }; reply: CheckedAdapter };
};

export const FOLDER_WORKER: WorkerKind = {
  name: 'folder-worker',
  failures: { code: 'ERR_FOLDER_WORKER', whose: 'the reader of folders' },
  // What users gave has been through JSON: this can't happen.
  refusal: { code: 'ERR_INTERNAL', message: 'a request to the reader of folders is no plain data' },
};
