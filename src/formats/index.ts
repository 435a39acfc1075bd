export { readBaseFolder } from './base-folder.js';
export { describeAdapterFolder, readAdapterFolder } from './adapter-folder.js';
export type * from './types.js';
