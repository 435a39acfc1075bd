// Adapters of the Hugging Face hub, by the names of their repositories.

import { OpenLoraError } from '../errors.js';
import { checkAccess, commitOf, filesOf, isHubToken, type HubRepo } from '../hub/client.js';
import { downloadSnapshot } from '../hub/download.js';
import { chooseFiles, isRepoName, isSafeRevision, kindOf, type HubFile } from '../hub/files.js';
import { parseByteSize, showBytes } from './byte-size.js';
import { whenAborted } from './signals.js';
import { withRetries } from './store-fetch.js';
import type { AdapterResolver, ByteSize } from './types.js';
import { checkInteger, checkKeys, checkObject, checkPath, checkText, checkUrl, invalid } from './validate.js';

export interface HubResolverOptions {
  /** Default: 'https://huggingface.co'. */
  endpoint?: string;
  /** `hf_…` of all requests, or of each tenant; asked for each resolution. null: none, which sees what is public. Default: none. */
  token?:
    string | ((tenant: string | undefined, options: { signal: AbortSignal }) => string | null | Promise<string | null>);
  /** Branch, tag or commit. Default: 'main', as it is when the adapter is resolved. */
  revision?: string;
  /** Repositories that may be asked for: `ORG/NAME`, `ORG/*`, or what says so. Default: every one. */
  allow?: readonly string[] | ((id: string, tenant: string | undefined) => boolean);
  /** Default: the cache that huggingface_hub and `openlora pull` use. Nothing is ever removed from it. */
  cacheDir?: string;
  /** Of all files of an adapter; more is ERR_ADAPTER_SIZE. Default: '2GiB'. */
  maxBytes?: ByteSize;
  /**
   * Of a question to the hub, and of a download that makes no progress, 1 to 100; pauses grow from 0.5 s, to 8 s at most. Default: 4.
   */
  attempts?: number;
}

// prettier-ignore
const KEYS = {
  endpoint: 0, token: 0, revision: 0, allow: 0, cacheDir: 0, maxBytes: 0, attempts: 0,
} satisfies Record<keyof HubResolverOptions, 0>;

/**
 * A resolver that takes an id for a repository of the Hugging Face hub, ORG/NAME. Of it what adapters are read from is
 * downloaded into the hub's usual cache, and compared with the hub's digests; what is there already isn't fetched again, but
 * the hub is asked each time whether this tenant may read it. null: an id of another form, one that `allow` doesn't have, and a
 * repository or revision that isn't there for whoever asks. Throws for its options; the resolver rejects with ERR_HUB_AUTH,
 * ERR_HUB_REPO (no adapter), ERR_ADAPTER_SIZE, ERR_HUB_DIGEST, and, when every attempt failed, ERR_HUB, ERR_HUB_RATE and
 * ERR_HUB_UNREACHABLE.
 */
export function hubResolver(options: HubResolverOptions = {}): AdapterResolver {
  checkKeys('hubResolver', checkObject('hubResolver', options), KEYS);
  const o = options;
  const hubUrl = checkUrl('endpoint', o.endpoint ?? 'https://huggingface.co');
  const revision = checkText('revision', o.revision ?? 'main', 1, 256);
  if (!isSafeRevision(revision)) invalid('revision', revision, 'a branch, tag or commit');
  if (typeof o.token !== 'function') checkToken(o.token);
  const isAllowed = checkAllow(o.allow);
  const cacheDir = o.cacheDir === undefined ? undefined : checkPath('cacheDir', o.cacheDir);
  const bytesMax = parseByteSize('maxBytes', o.maxBytes ?? '2GiB');
  const attempts = checkInteger('attempts', o.attempts ?? 4, 1, 100);
  const downloads = new Turns();
  return async (id, { tenant, signal }) => {
    if (!isRepoName(id) || !isAllowed(id, tenant)) return null;
    const token = typeof o.token === 'function' ? await o.token(tenant, { signal }) : o.token;
    const repo: HubRepo = { name: id, revision, hubUrl, accessToken: checkToken(token), signal };
    const ask = <T>(question: () => Promise<T>) => withRetries({ attempts, signal }, question);
    const commit = await ask(() => commitOf(repo)).catch(unlessMissing);
    if (commit === undefined) return null;
    const files = adapterFiles(repo, await ask(() => filesOf(repo, commit)), bytesMax);
    // Of a gated repository everyone sees the list, and the cache may have the files by another tenant's token.
    await ask(() => checkAccess(repo, commit, files.at(-1)!.path));
    const cache = cacheDir ?? (await import('@huggingface/hub')).getHFHubCachePath();
    // Two downloads would write to one file.
    return downloads.take(`${id}/${commit}`, signal, async () => {
      return (await downloadSnapshot(repo, commit, files, cache, { attempts })).path;
    });
  };
}

/** The weights stand last. */
function adapterFiles({ name }: HubRepo, all: HubFile[], bytesMax: number): HubFile[] {
  const files = chooseFiles(all, 'adapter');
  const isWeights = ({ path }: HubFile) => path.endsWith('.safetensors');
  if (kindOf(all.map(({ path }) => path)) !== 'adapter' || !files.some(isWeights)) {
    const message = `${name}: wanted adapter_config.json and adapter_model.safetensors, so it is no adapter`;
    throw new OpenLoraError('ERR_HUB_REPO', message, { repo: name });
  }
  const bytes = files.reduce((sum, { size }) => sum + size, 0);
  if (bytes > bytesMax) {
    const message = `${name}: its files have ${showBytes(bytes)}, wanted at most ${showBytes(bytesMax)}`;
    throw new OpenLoraError('ERR_ADAPTER_SIZE', message, { bytes, bytesMax });
  }
  return [...files].sort((a, b) => Number(isWeights(a)) - Number(isWeights(b)));
}

/** undefined where there is nothing for whoever asks: the hub says 401 to strangers, private or not there. */
function unlessMissing(error: unknown): undefined {
  const { code, details } = OpenLoraError.is(error) ? error : { code: '', details: {} as Record<string, unknown> };
  const isUnknown = code === 'ERR_HUB_AUTH' && details.status === 401 && details.hasToken === false;
  if (code !== 'ERR_HUB_NOT_FOUND' && !isUnknown) throw error;
}

function checkToken(value: unknown): string | undefined {
  if (value === undefined || value === null) return undefined;
  if (isHubToken(value)) return value;
  // Never the value: messages are logged.
  throw new OpenLoraError('ERR_INVALID_OPTION', "token: wanted a token of the hub, which begins with 'hf_'", {});
}

function checkAllow(value: HubResolverOptions['allow']): (id: string, tenant: string | undefined) => boolean {
  if (value === undefined) return () => true;
  if (typeof value === 'function') return (id, tenant) => value(id, tenant) === true;
  if (!Array.isArray(value)) invalid('allow', value, 'an array of names, or a function');
  const names = new Set<string>();
  for (const name of value as unknown[]) {
    const text = checkText('allow', name, 1, 256);
    if (!isRepoName(text.replace(/\/\*$/, '/x'))) invalid('allow', text, 'ORG/NAME or ORG/*');
    names.add(text);
  }
  return (id) => names.has(id) || names.has(`${id.slice(0, id.indexOf('/'))}/*`);
}

/** One at a time for each key; who waits may leave. */
class Turns {
  readonly #last = new Map<string, Promise<void>>();

  async take<T>(key: string, signal: AbortSignal, action: () => Promise<T>): Promise<T> {
    for (let before = this.#last.get(key); before !== undefined; before = this.#last.get(key)) {
      const abort = whenAborted(signal);
      await Promise.race([before, abort.promise]).finally(() => abort.stop());
    }
    const turn = action();
    const over = turn.then(
      () => undefined,
      () => undefined,
    );
    const cleared = over.then(() => void this.#last.delete(key));
    this.#last.set(key, cleared);
    return turn;
  }
}
