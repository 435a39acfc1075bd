// The thread that reads the folders of one base and its adapters: parsing and checking hundreds of tensors takes tens of
// milliseconds, and their objects never reach the JS thread, nor does the collection of them.

import { adapterSiteTable, adapterTensorTable, baseTensorTable } from './tables.js';
import { checkAdapter, readAdapterFolder } from './adapter-folder.js';
import { readBaseFolder } from './base-folder.js';
import { FOLDER_WORKER, type CheckedAdapter, type FolderRequests } from './folder-protocol.js';
import type { AdapterFolder, BaseFolder } from './types.js';
import { serve, type Answer, type Answers } from './worker-port.js';

/** While one waits for its files, another is checked. */
const AT_ONCE = 2;

let opened: Promise<BaseFolder> | undefined;

function base(): Promise<BaseFolder> {
  return opened ?? Promise.reject(new Error('the base was not opened'));
}

function answerWith({ spec, info }: AdapterFolder): Answer<CheckedAdapter> {
  const { files, headerDigests, canonicalConfig } = spec;
  const [tensors, sites] = [adapterTensorTable(spec.tensors), adapterSiteTable(spec.sites)];
  const baseTensors = baseTensorTable(spec.baseTensors);
  const baseTensorNames = spec.baseTensors.map(({ name }) => name);
  return {
    value: { spec: { files, headerDigests, tensors, sites, baseTensors, baseTensorNames, canonicalConfig }, info },
    transfer: [tensors.buffer, sites.buffer, baseTensors.buffer],
  };
}

const answers: Answers<FolderRequests> = {
  open: async ({ path }, signal) => {
    opened = readBaseFolder(path, { signal });
    const { tensors, modules: _, linearModules: __, config: ___, ...description } = await opened;
    const table = baseTensorTable(tensors);
    return { value: { ...description, tensors: table }, transfer: [table.buffer] };
  },
  readAdapter: async ({ path, strictBase, vocabulary }, signal) =>
    answerWith(await readAdapterFolder(path, await base(), { strictBase, vocabulary, signal })),
  checkAdapter: async ({ parts, strictBase }, signal) =>
    answerWith(await checkAdapter(parts, await base(), { strictBase, signal })),
};

serve(answers, FOLDER_WORKER.failures, AT_ONCE);
