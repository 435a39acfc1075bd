import type { AdapterDescription, AdapterFolder, BaseFolder } from './types.js';

/** Reads and checks a PEFT adapter folder against a base. */
export async function readAdapterFolder(
  path: string,
  base: BaseFolder,
  o: { strictBase?: boolean; signal?: AbortSignal } = {},
): Promise<AdapterFolder> {
  await Promise.reject(new Error(`not built yet: ${path} ${base.path} ${String(o.signal)}`));
  throw new Error();
}

/** Describes an adapter folder without a base: rank, sites, bytes. */
export async function describeAdapterFolder(path: string, o: { signal?: AbortSignal } = {}): Promise<AdapterDescription & { baseNameOrPath?: string }> {
  await Promise.reject(new Error(`not built yet: ${path} ${String(o.signal)}`));
  throw new Error();
}
