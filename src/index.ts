// The public API of openlora.

import { openFolderReader } from './formats/index.js';
import { openTokenizer } from './formats/tokenizer.js';
import { loadNativeInTurns } from './native/load.js';
import { createLoadBase } from './sdk/load-base.js';
import type { Base, LoadBaseOptions } from './sdk/types.js';

/**
 * Loads a base from a Hugging Face checkpoint folder. Rejects with an OpenLoraError (docs/errors.md) when everything that
 * was begun is freed again.
 *
 * @example
 * await using base = await loadBase({ path: 'models/llama' });
 * await base.registerAdapter('alice', 'adapters/alice');
 * for await (const chunk of base.generate({ adapter: 'alice', prompt: 'Hello' })) process.stdout.write(chunk.text);
 */
export const loadBase: (options: LoadBaseOptions) => Promise<Base> = createLoadBase({
  loadNative: () => loadNativeInTurns(),
  openFolderReader,
  openTokenizer,
});

export { OpenLoraError } from './errors.js';
export { inspectAdapter, inspectBase } from './sdk/inspect.js';
export { folderResolver, type ResolverRoot } from './sdk/folder-resolver.js';
export { hubResolver, type HubResolverOptions } from './sdk/hub-resolver.js';
export { s3Resolver, type S3Credentials, type S3ResolverOptions } from './sdk/s3-resolver.js';
export type {
  AdapterExtents,
  AdapterFit,
  AdapterMisfit,
  InspectedAdapter,
  InspectedBase,
  InspectedError,
  Misfit,
} from './sdk/inspect.js';
export type * from './sdk/types.js';
export type * from './sdk/request-types.js';
