export { readBaseFolder } from './base-folder.js';
export { checkAdapter, describeAdapterFolder, readAdapterFolder } from './adapter-folder.js';
export type { AdapterOptions, AdapterParts } from './adapter-folder.js';
export { examineAdapterFolder } from './adapter-examination.js';
export type { AdapterExtents } from './adapter-examination.js';
export { openFolderReader } from './folder-reader.js';
export type { BaseDescription, CheckedAdapter, FolderReader } from './folder-reader.js';
export type * from './types.js';
