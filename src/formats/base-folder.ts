import type { BaseFolder } from './types.js';

/** Reads and checks a base folder: config.json, generation_config.json and the safetensors headers. */
export async function readBaseFolder(path: string, o: { signal?: AbortSignal } = {}): Promise<BaseFolder> {
  await Promise.reject(new Error(`not built yet: ${path} ${String(o.signal)}`));
  throw new Error();
}
