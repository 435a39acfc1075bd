// The adapters of one base: names, their generations, and what waits for them.
//
// A name means one generation at a time. A registration is checked while requests find what the name meant before; then the
// name is swapped in one turn (`publish`), and the generation before is hidden: requests that found it finish with it, and the
// engine forgets it when the last of them has reached its end.

import { OpenLoraError } from '../errors.js';
import type { AdapterDescription, BaseSite, FormatWarning } from '../formats/types.js';
import type { ChatTemplateSource } from '../formats/tokenizer-types.js';
import type { NativeTier } from '../native/binding.js';
import { AdapterEntry, keptKeyOf, keyOf, SharedValues, SiteSets } from './adapter-record.js';
import { Deferred } from './deferred.js';
import type { AdapterInfo } from './types.js';

export { AdapterEntry } from './adapter-record.js';

export interface AdapterEngine {
  unregisterAdapter(handle: number): void;
  adapterTier(handle: number): NativeTier | undefined;
}

/** What a registry stands on. */
export interface RegistryParts {
  engine: AdapterEngine;
  /** Of adapters in memory. */
  dtype: string;
  sites: readonly BaseSite[];
  /** Removes the file of that number; never rejects. */
  removeSpooled(spooled: number): Promise<void>;
}

/** A call of `registerAdapter` that runs. */
export class Registration {
  /** Aborted with ERR_ADAPTER_SUPERSEDED when a later call for the name is done before. */
  readonly superseded = new AbortController();
  /** Once the engine has heard of it. */
  entry: AdapterEntry | undefined;

  constructor(readonly key: string) {}
}

interface Waiting {
  readonly entry: AdapterEntry;
  readonly done: Deferred<void>;
}

/** Names are (tenant, id); a tenant finds its own first, then the shared ones. Every lookup is O(1). */
export class AdapterRegistry {
  /** Called with what a name means now, in the turn of the swap. */
  onPublished: ((entry: AdapterEntry) => void) | undefined;
  /** Called with what no name means any more. */
  onHidden: ((entry: AdapterEntry) => void) | undefined;

  readonly #byName = new Map<string, AdapterEntry>();
  /** The engine checks them. By handle. */
  readonly #checking = new Map<number, Waiting>();
  /** Hidden, and the engine has not freed them. By handle, and by name. */
  readonly #leaving = new Map<number, Waiting>();
  readonly #leavingOf = new Map<string, Set<Promise<void>>>();
  /** In the order in which they were called. */
  readonly #running = new Map<string, Set<Registration>>();
  readonly #warnings = new SharedValues<FormatWarning[]>();
  readonly #chats = new SharedValues<ChatTemplateSource>();
  readonly #sites: SiteSets;
  #handles = 0;

  constructor(private readonly parts: RegistryParts) {
    this.#sites = new SiteSets(parts.sites);
  }

  get count(): number {
    return this.#byName.size;
  }

  /** The caller ends it, whatever comes of it. */
  begin(id: string, tenant: string | undefined): Registration {
    const registration = new Registration(keyOf(id, tenant));
    const running = this.#running.get(registration.key);
    if (running) running.add(registration);
    else this.#running.set(registration.key, new Set([registration]));
    return registration;
  }

  end(registration: Registration): void {
    const running = this.#running.get(registration.key);
    running?.delete(registration);
    if (running?.size === 0) this.#running.delete(registration.key);
  }

  /** An entry that the engine is about to hear of; not to be found by its name before `publish`. */
  add(
    id: string,
    tenant: string | undefined,
    description: AdapterDescription,
    o: { spooled?: number; isResolved?: boolean } = {},
  ): AdapterEntry {
    const { rank, parameters, sites, warnings, chat } = description;
    const entry = new AdapterEntry(
      keptKeyOf(id, tenant),
      ++this.#handles,
      rank.min,
      rank.max,
      parameters,
      this.#sites.pack(sites),
      warnings.length === 0 ? undefined : this.#warnings.take(warnings),
      chat && this.#chats.take(chat),
      o.spooled ?? 0,
      o.isResolved ?? false,
    );
    this.#checking.set(entry.handle, { entry, done: new Deferred() });
    return entry;
  }

  /** Resolves when the engine has hashed and checked an entry that was just added. */
  whenReady(entry: AdapterEntry): Promise<void> {
    return this.#checking.get(entry.handle)!.done.promise;
  }

  /**
   * The swap: from here on the name means `entry`, which is ready. `expected` is the generation that it must mean before, or
   * null: nothing. Calls for the name that began before this one are superseded. Where the name means the same content
   * already, and neither depends on files of the caller's, that stays and is returned; but not where `isHeld`: the engine holds
   * `entry`, not that. Throws ERR_ADAPTER_GENERATION, and ERR_ADAPTER_SUPERSEDED.
   */
  publish(
    entry: AdapterEntry,
    registration: Registration,
    expected: string | null | undefined,
    isHeld: boolean,
  ): AdapterEntry {
    registration.superseded.signal.throwIfAborted();
    const current = this.#byName.get(entry.key);
    if (expected !== undefined && (current?.generation ?? null) !== expected) {
      throw otherGeneration(entry.id, current?.generation ?? null, expected);
    }
    this.#supersede(entry.key, 'registered again', registration);
    const isSame = current !== undefined && current.generation === entry.generation;
    if (isSame && !isHeld && current.spooled !== 0 && entry.spooled !== 0 && !current.isResolved) {
      this.hide(entry);
      return current;
    }
    this.#swap(entry);
    return entry;
  }

  /** What a resolver gave takes a name that is free. Returns what the name means then. */
  publishResolved(entry: AdapterEntry): AdapterEntry {
    const current = this.#byName.get(entry.key);
    if (current === undefined) this.#swap(entry);
    else this.hide(entry);
    return current ?? entry;
  }

  #swap(entry: AdapterEntry): void {
    const before = this.#byName.get(entry.key);
    this.#byName.set(entry.key, entry);
    if (before !== undefined) this.hide(before);
    this.onPublished?.(entry);
  }

  /** Ends the registrations of a name that began before `last`; all, without it. */
  #supersede(key: string, how: string, last?: Registration): void {
    for (const registration of this.#running.get(key) ?? []) {
      if (registration === last) return;
      if (registration.entry !== undefined) this.hide(registration.entry);
      const id = key.slice(key.indexOf('\0') + 1);
      const message = `adapter '${id}' was ${how} by a later call, before this one was done`;
      registration.superseded.abort(new OpenLoraError('ERR_ADAPTER_SUPERSEDED', message, { id }));
    }
  }

  /**
   * Takes exactly (tenant, id) away, also from the registrations of it that run: nobody unregisters what is shared in
   * passing. Resolves when the engine has freed every generation of it. Throws ERR_ADAPTER_NOT_FOUND.
   */
  unregister(id: string, tenant: string | undefined): Promise<void> {
    const key = keyOf(id, tenant);
    const entry = this.#byName.get(key);
    if (entry === undefined && !this.#running.has(key)) throw notFound(id, tenant);
    this.#supersede(key, 'unregistered');
    if (entry !== undefined) this.hide(entry);
    const leaving: Iterable<Promise<void>> = this.#leavingOf.get(key) ?? [];
    return Promise.all(leaving).then(() => undefined);
  }

  /** Takes the name away from it; the engine forgets it once every request made before has reached it. */
  hide(entry: AdapterEntry): void {
    if (entry.isHidden) return;
    entry.isHidden = true;
    if (this.#byName.get(entry.key) === entry) this.#byName.delete(entry.key);
    this.#expectLeaving(entry);
    this.onHidden?.(entry);
    if (entry.preparing === 0) this.parts.engine.unregisterAdapter(entry.handle);
  }

  #expectLeaving(entry: AdapterEntry): void {
    const done = new Deferred<void>();
    this.#leaving.set(entry.handle, { entry, done });
    const leaving = this.#leavingOf.get(entry.key) ?? new Set();
    this.#leavingOf.set(entry.key, leaving);
    const freed = done.promise.then(() => this.#removeSpooled(entry));
    leaving.add(freed);
    void freed.then(() => {
      leaving.delete(freed);
      if (leaving.size === 0 && this.#leavingOf.get(entry.key) === leaving) this.#leavingOf.delete(entry.key);
    });
  }

  async #removeSpooled({ spooled }: AdapterEntry): Promise<void> {
    if (spooled !== 0) await this.parts.removeSpooled(spooled);
  }

  beginRequest(entry: AdapterEntry): void {
    entry.preparing++;
  }

  /** The request has reached the engine, or never will. */
  endRequest(entry: AdapterEntry): void {
    entry.preparing--;
    if (entry.preparing === 0 && entry.isHidden) this.parts.engine.unregisterAdapter(entry.handle);
  }

  /** What `tenant` means by `id`. Throws ERR_ADAPTER_NOT_FOUND. */
  find(id: string, tenant: string | undefined): AdapterEntry {
    const entry = this.get(id, tenant);
    if (entry === undefined) throw notFound(id, tenant);
    return entry;
  }

  get(id: string, tenant: string | undefined): AdapterEntry | undefined {
    const shared = this.#byName.get(keyOf(id, undefined));
    if (tenant === undefined) return shared;
    // What a resolver gave for no tenant is none's: what a tenant gets doesn't depend on who asked before.
    return this.#byName.get(keyOf(id, tenant)) ?? (shared?.isResolved ? undefined : shared);
  }

  onReady(handle: number, generation: string, bytes: number): void {
    const waiting = this.#checking.get(handle);
    if (waiting === undefined) return;
    this.#checking.delete(handle);
    waiting.entry.generation = generation;
    waiting.entry.bytes = bytes;
    waiting.done.resolve();
  }

  /** Before it was ready: its registration fails and the engine knows it no more. Afterwards only its requests fail. */
  onFailed(handle: number, error: OpenLoraError): void {
    const waiting = this.#checking.get(handle);
    if (waiting === undefined) return;
    this.#checking.delete(handle);
    waiting.entry.isHidden = true;
    waiting.done.reject(error);
    if (!this.#retire(handle)) this.#forget(waiting.entry);
  }

  onRetired(handle: number): void {
    this.#retire(handle);
  }

  #retire(handle: number): boolean {
    const waiting = this.#leaving.get(handle);
    if (waiting === undefined) return false;
    this.#leaving.delete(handle);
    this.#forget(waiting.entry);
    waiting.done.resolve();
    return true;
  }

  #forget({ warnings, chat }: AdapterEntry): void {
    this.#warnings.release(warnings);
    this.#chats.release(chat);
  }

  /** The engine is gone: registrations fail, what waited for memory to be freed has it. */
  close(error: OpenLoraError): void {
    for (const { done } of this.#checking.values()) done.reject(error);
    for (const { done } of this.#leaving.values()) done.resolve();
    for (const kept of [this.#checking, this.#leaving, this.#byName]) kept.clear();
  }

  info(entry: AdapterEntry): AdapterInfo {
    const { tenant, rankMin, rankMax, parameters, warnings } = entry;
    return {
      id: entry.id,
      ...(tenant === undefined ? {} : { tenant }),
      generation: entry.generation,
      rank: { min: rankMin, max: rankMax },
      sites: this.#sites.unpack(entry.sites),
      parameters,
      bytes: entry.bytes,
      dtype: this.parts.dtype,
      tier: this.parts.engine.adapterTier(entry.handle) ?? 'registered',
      warnings: (warnings?.value ?? []).map((warning) => ({ ...warning })),
    };
  }

  *list(): Generator<AdapterInfo, void, undefined> {
    for (const entry of this.#byName.values()) yield this.info(entry);
  }
}

export function notFound(id: string, tenant: string | undefined): OpenLoraError {
  const whose = tenant === undefined ? '' : ` for tenant '${tenant}'`;
  return new OpenLoraError('ERR_ADAPTER_NOT_FOUND', `adapter '${id}' is not registered${whose}`, { id });
}

function otherGeneration(id: string, generation: string | null, expected: string | null): OpenLoraError {
  const got = generation === null ? 'is not registered' : `is of generation ${generation}`;
  const wanted = expected === null ? 'no adapter of that id' : `generation ${expected}`;
  const message = `adapter '${id}' ${got}, expectedGeneration wanted ${wanted}`;
  return new OpenLoraError('ERR_ADAPTER_GENERATION', message, { id, generation, expected });
}
