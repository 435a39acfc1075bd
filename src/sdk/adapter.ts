// The adapters of one base: names, handles, and what waits for them.

import { OpenLoraError } from '../errors.js';
import type { AdapterDescription } from '../formats/types.js';
import type { NativeTier } from '../native/binding.js';
import { Deferred } from './deferred.js';
import type { AdapterInfo } from './types.js';

export interface AdapterEntry {
  readonly id: string;
  readonly tenant: string | undefined;
  readonly handle: number;
  readonly description: AdapterDescription;
  /** Both known once the engine has hashed it. */
  generation: string;
  bytes: number;
  /** Requests that name it and have not reached the engine. */
  preparing: number;
  isHidden: boolean;
  /** The engine has hashed and checked it. */
  readonly ready: Deferred<void>;
  /** The engine has freed it. */
  readonly retired: Deferred<void>;
  /** So, and what it was loaded from is gone, if that was ours. Never rejects. */
  readonly freed: Promise<void>;
}

export interface AdapterEngine {
  unregisterAdapter(handle: number): void;
  adapterTier(handle: number): NativeTier | undefined;
}

/** Names are (tenant, id); a tenant finds its own first, then the shared ones. Every lookup is O(1). */
export class AdapterRegistry {
  readonly #byName = new Map<string, AdapterEntry>();
  readonly #byHandle = new Map<number, AdapterEntry>();
  /** Names whose registration is on its way. */
  readonly #reserved = new Set<string>();
  #handles = 0;

  constructor(
    private readonly engine: AdapterEngine,
    private readonly dtype: string,
  ) {}

  get count(): number {
    return this.#byName.size;
  }

  /** Keeps a name for a registration. Throws ERR_ADAPTER_EXISTS. */
  reserve(id: string, tenant: string | undefined): void {
    const key = keyOf(id, tenant);
    if (this.#byName.has(key) || this.#reserved.has(key)) {
      throw new OpenLoraError('ERR_ADAPTER_EXISTS', `adapter '${id}' is registered already; unregister it first`, {
        id,
      });
    }
    this.#reserved.add(key);
  }

  release(id: string, tenant: string | undefined): void {
    this.#reserved.delete(keyOf(id, tenant));
  }

  /**
   * An entry that the engine is about to hear of; not to be found by its name before `publish`. `free`, which
   * never rejects, is called once the engine has freed it.
   */
  add(
    id: string,
    tenant: string | undefined,
    description: AdapterDescription,
    free: () => Promise<void> = () => Promise.resolve(),
  ): AdapterEntry {
    const retired = new Deferred<void>();
    const entry: AdapterEntry = {
      id,
      tenant,
      handle: ++this.#handles,
      description,
      generation: '',
      bytes: 0,
      preparing: 0,
      isHidden: false,
      ready: new Deferred(),
      retired,
      freed: retired.promise.then(free),
    };
    this.#byHandle.set(entry.handle, entry);
    return entry;
  }

  publish(entry: AdapterEntry): void {
    this.#byName.set(keyOf(entry.id, entry.tenant), entry);
  }

  /** Takes the name away; the engine forgets the adapter once every request made before has reached it. */
  hide(entry: AdapterEntry): void {
    if (entry.isHidden) return;
    entry.isHidden = true;
    const key = keyOf(entry.id, entry.tenant);
    if (this.#byName.get(key) === entry) this.#byName.delete(key);
    if (entry.preparing === 0) this.engine.unregisterAdapter(entry.handle);
  }

  beginRequest(entry: AdapterEntry): void {
    entry.preparing++;
  }

  /** The request has reached the engine, or never will. */
  endRequest(entry: AdapterEntry): void {
    entry.preparing--;
    if (entry.preparing === 0 && entry.isHidden) this.engine.unregisterAdapter(entry.handle);
  }

  /** What `tenant` means by `id`. Throws ERR_ADAPTER_NOT_FOUND. */
  find(id: string, tenant: string | undefined): AdapterEntry {
    const entry = this.get(id, tenant);
    if (entry === undefined) throw notFound(id, tenant);
    return entry;
  }

  get(id: string, tenant: string | undefined): AdapterEntry | undefined {
    const own = tenant === undefined ? undefined : this.#byName.get(keyOf(id, tenant));
    return own ?? this.#byName.get(keyOf(id, undefined));
  }

  /** Exactly (tenant, id): nobody unregisters what is shared in passing. Throws ERR_ADAPTER_NOT_FOUND. */
  findOwn(id: string, tenant: string | undefined): AdapterEntry {
    const entry = this.#byName.get(keyOf(id, tenant));
    if (entry === undefined) throw notFound(id, tenant);
    return entry;
  }

  onReady(handle: number, generation: string, bytes: number): void {
    const entry = this.#byHandle.get(handle);
    if (entry === undefined) return;
    entry.generation = generation;
    entry.bytes = bytes;
    entry.ready.resolve();
  }

  /** Before it was ready: its registration fails and the engine knows it no more. Afterwards only its requests fail. */
  onFailed(handle: number, error: OpenLoraError): void {
    const entry = this.#byHandle.get(handle);
    if (entry === undefined || entry.generation !== '') return;
    this.#byHandle.delete(handle);
    entry.isHidden = true;
    entry.ready.reject(error);
    entry.retired.resolve();
  }

  onRetired(handle: number): void {
    const entry = this.#byHandle.get(handle);
    this.#byHandle.delete(handle);
    entry?.retired.resolve();
  }

  /** The engine is gone: registrations fail, what waited for memory to be freed has it. */
  close(error: OpenLoraError): void {
    for (const entry of this.#byHandle.values()) {
      entry.ready.reject(error);
      entry.retired.resolve();
    }
    this.#byHandle.clear();
    this.#byName.clear();
    this.#reserved.clear();
  }

  info(entry: AdapterEntry): AdapterInfo {
    const { rank, sites, parameters, warnings } = entry.description;
    return {
      id: entry.id,
      ...(entry.tenant === undefined ? {} : { tenant: entry.tenant }),
      generation: entry.generation,
      rank: { ...rank },
      sites: [...sites],
      parameters,
      bytes: entry.bytes,
      dtype: this.dtype,
      tier: this.engine.adapterTier(entry.handle) ?? 'registered',
      warnings: warnings.map((warning) => ({ ...warning })),
    };
  }

  *list(): Generator<AdapterInfo, void, undefined> {
    for (const entry of this.#byName.values()) yield this.info(entry);
  }
}

/** Neither part has control characters. */
function keyOf(id: string, tenant: string | undefined): string {
  return `${tenant ?? ''}\u0000${id}`;
}

function notFound(id: string, tenant: string | undefined): OpenLoraError {
  const whose = tenant === undefined ? '' : ` for tenant '${tenant}'`;
  return new OpenLoraError('ERR_ADAPTER_NOT_FOUND', `adapter '${id}' is not registered${whose}`, { id });
}
