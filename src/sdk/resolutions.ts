// Adapters that requests name and nobody registered: the user's resolver is asked for each (tenant, id) once, however many
// requests wait for it, and what it gives is registered.

import { OpenLoraError } from '../errors.js';
import { notFound, type AdapterEntry, type AdapterRegistry } from './adapter.js';
import { keyOf } from './adapter-record.js';
import { checkAdapterSource, letGoOf, type AdapterSource } from './adapter-source.js';
import { closedError, toOpenLoraError } from './errors.js';
import type { CheckedResolverLimits } from './load-options.js';
import { onAbort, whenAborted } from './signals.js';
import type { AdapterResolver } from './types.js';

export interface ResolutionParts {
  resolver: AdapterResolver;
  limits: CheckedResolverLimits;
  registry: AdapterRegistry;
  /** Reads and checks it, and has the registry publish it if the name is free then. */
  register(id: string, tenant: string | undefined, source: AdapterSource, signal: AbortSignal): Promise<void>;
}

/** A request that waits. */
interface Waiter {
  resolve(entry: AdapterEntry): void;
  reject(error: OpenLoraError): void;
}

/** The answer to one question, on its way. */
interface Flight {
  readonly key: string;
  readonly id: string;
  readonly tenant: string | undefined;
  readonly waiters: Set<Waiter>;
  /** Aborted when nobody waits, when the time is over, and when the base is disposed. */
  readonly controller: AbortController;
}

/** Of an id that is refused without asking: what the resolver or registering said. */
interface Miss {
  readonly code: string;
  readonly message: string;
  readonly details: Readonly<Record<string, unknown>>;
  readonly untilMs: number;
}

/** Codes that say nothing of the adapter. */
const PASSING = new Set(['ERR_ABORTED', 'ERR_CLOSED', 'ERR_FOLDER_WORKER', 'ERR_INTERNAL']);

export class Resolutions {
  readonly #parts: ResolutionParts;
  readonly #flights = new Map<string, Flight>();
  /** Flights that may not ask yet, by tenant; tenants take turns. */
  readonly #queues = new Map<string, Set<Flight>>();
  #running = 0;
  /** What asking again would give, the oldest first; all are remembered for the same time. */
  readonly #misses = new Map<string, Miss>();
  /** What came from the resolver, the least recently used first. */
  readonly #resolved = new Map<string, AdapterEntry>();

  constructor(parts: ResolutionParts) {
    this.#parts = parts;
    parts.registry.onPublished = (entry) => this.#onPublished(entry);
    parts.registry.onHidden = (entry) => {
      if (this.#resolved.get(entry.key) === entry) this.#resolved.delete(entry.key);
    };
  }

  /** A request uses it. */
  touch(entry: AdapterEntry): void {
    if (this.#resolved.delete(entry.key)) this.#resolved.set(entry.key, entry);
  }

  /**
   * What the resolver gives for an id that isn't registered; it counts as a request's, which the caller ends (`endRequest`).
   * Rejects with ERR_ADAPTER_NOT_FOUND, ERR_ADAPTER_RESOLVER, ERR_ADAPTER_RESOLVER_TIMEOUT, with the resolver's own
   * OpenLoraError, with what registering rejects with, and with the reason of `signal`.
   */
  async wait(id: string, tenant: string | undefined, signal: AbortSignal): Promise<AdapterEntry> {
    const key = keyOf(id, tenant);
    const miss = this.#misses.get(key);
    if (miss !== undefined && miss.untilMs > performance.now()) {
      throw new OpenLoraError(miss.code, miss.message, { ...miss.details });
    }
    signal.throwIfAborted();
    const flight = this.#flights.get(key) ?? this.#begin(key, id, tenant);
    return new Promise((resolve, reject) => {
      const waiter: Waiter = {
        resolve: (entry) => {
          letGo();
          this.#parts.registry.beginRequest(entry);
          resolve(entry);
        },
        reject: (error) => {
          letGo();
          reject(error);
        },
      };
      flight.waiters.add(waiter);
      const letGo = onAbort(signal, () => {
        flight.waiters.delete(waiter);
        reject(signal.reason as Error);
        if (flight.waiters.size === 0) this.#end(flight, nobodyWaits(id));
      });
    });
  }

  /** Every request that waits, and the resolver's signals, end with ERR_CLOSED. */
  dispose(): void {
    for (const flight of [...this.#flights.values()]) {
      const error = closedError('generate');
      this.#settle(flight, (waiter) => waiter.reject(error));
      this.#end(flight, error);
    }
    this.#misses.clear();
    this.#resolved.clear();
  }

  #begin(key: string, id: string, tenant: string | undefined): Flight {
    const flight: Flight = { key, id, tenant, waiters: new Set(), controller: new AbortController() };
    this.#flights.set(key, flight);
    const queue = this.#queues.get(tenant ?? '');
    if (queue) queue.add(flight);
    else this.#queues.set(tenant ?? '', new Set([flight]));
    // In a turn of its own: the resolver is the caller's code, and `generate` never runs that.
    queueMicrotask(() => this.#startNext());
    return flight;
  }

  #startNext(): void {
    while (this.#running < this.#parts.limits.maxConcurrent && this.#queues.size > 0) {
      const [tenant, queue] = this.#queues.entries().next().value!;
      const [flight] = queue;
      queue.delete(flight!);
      this.#queues.delete(tenant);
      if (queue.size > 0) this.#queues.set(tenant, queue);
      this.#running++;
      void this.#run(flight!).then(() => {
        this.#running--;
        this.#startNext();
      });
    }
  }

  /** Never rejects. */
  async #run(flight: Flight): Promise<void> {
    const { id, tenant, controller } = flight;
    const { signal } = controller;
    const { timeoutMs } = this.#parts.limits;
    const timer = setTimeout(() => controller.abort(tooLate(id, timeoutMs)), timeoutMs);
    try {
      const source = await this.#ask(flight);
      if (source === null) {
        // One that was registered for all meanwhile is this tenant's, too.
        const shared = this.#parts.registry.get(id, tenant);
        if (shared === undefined) throw notFound(id, tenant);
        this.#settle(flight, (waiter) => waiter.resolve(shared));
        return;
      }
      await this.#parts.register(id, tenant, source, signal);
    } catch (cause) {
      const error = toOpenLoraError(signal.aborted ? signal.reason : cause);
      if (this.#flights.get(flight.key) === flight && isLasting(error)) this.#remember(flight.key, error);
      this.#settle(flight, (waiter) => waiter.reject(error));
      // Whatever it has open is of no use any more.
      controller.abort(error);
    } finally {
      clearTimeout(timer);
      this.#end(flight, undefined);
    }
  }

  async #ask({ id, tenant, controller: { signal } }: Flight): Promise<AdapterSource | null> {
    const options = { signal, ...(tenant === undefined ? {} : { tenant }) };
    const asked = (async () => this.#parts.resolver(id, options))();
    const abort = whenAborted(signal);
    try {
      const given: unknown = await Promise.race([asked, abort.promise]);
      if (given === null) return null;
      try {
        return checkAdapterSource(given);
      } catch (cause) {
        letGoOf(given);
        throw badAnswer(id, cause);
      }
    } catch (error) {
      // What comes too late is told to let go; nobody hears of its errors.
      if (signal.aborted) asked.then(letGoOf, () => undefined);
      throw codedError(id, error);
    } finally {
      abort.stop();
    }
  }

  /** In the turn in which requests begin to find it. */
  #onPublished(entry: AdapterEntry): void {
    this.#misses.delete(entry.key);
    const flight = this.#flights.get(entry.key);
    if (flight !== undefined) {
      this.#settle(flight, (waiter) => waiter.resolve(entry));
      // It is over, also for who asks in this turn. Where somebody registered the id meanwhile, that counts.
      this.#end(flight, entry.isResolved ? undefined : nobodyWaits(flight.id));
    }
    if (!entry.isResolved) return;
    this.#resolved.set(entry.key, entry);
    if (this.#resolved.size <= this.#parts.limits.maxResolved) return;
    const [oldest] = this.#resolved.values();
    this.#parts.registry.hide(oldest!);
  }

  #settle(flight: Flight, settle: (waiter: Waiter) => void): void {
    const waiters = [...flight.waiters];
    flight.waiters.clear();
    for (const waiter of waiters) settle(waiter);
  }

  /** No request joins it any more; with a `reason`, whoever works for it is told to stop. */
  #end(flight: Flight, reason: OpenLoraError | undefined): void {
    if (this.#flights.get(flight.key) === flight) this.#flights.delete(flight.key);
    const queue = this.#queues.get(flight.tenant ?? '');
    if (queue?.delete(flight) && queue.size === 0) this.#queues.delete(flight.tenant ?? '');
    if (reason !== undefined) flight.controller.abort(reason);
  }

  #remember(key: string, { code, message, details }: OpenLoraError): void {
    const { missTtlMs, maxMisses } = this.#parts.limits;
    const now = performance.now();
    for (const [oldest, { untilMs }] of this.#misses) {
      if (untilMs > now && this.#misses.size < maxMisses) break;
      this.#misses.delete(oldest);
    }
    this.#misses.delete(key);
    if (missTtlMs > 0 && maxMisses > 0) this.#misses.set(key, { code, message, details, untilMs: now + missTtlMs });
  }
}

/** Whether asking again soon would end as this did. */
function isLasting({ code, retryable }: OpenLoraError): boolean {
  return !retryable && !PASSING.has(code);
}

function codedError(id: string, cause: unknown): OpenLoraError {
  if (OpenLoraError.is(cause)) return cause;
  const why = cause instanceof Error ? cause.message : String(cause);
  return new OpenLoraError('ERR_ADAPTER_RESOLVER', `adapterResolver failed for '${id}': ${why}`, { id }, cause);
}

function badAnswer(id: string, cause: unknown): OpenLoraError {
  const why = cause instanceof Error ? cause.message : String(cause);
  const message = `adapterResolver gave for '${id}' neither a path, nor AdapterFiles, nor null: ${why}`;
  return new OpenLoraError('ERR_ADAPTER_RESOLVER', message, { id }, cause);
}

function tooLate(id: string, timeoutMs: number): OpenLoraError {
  const message = `adapterResolver, or reading what it gave, took longer for '${id}' than ${timeoutMs} ms, resolverLimits.timeoutMs`;
  return new OpenLoraError('ERR_ADAPTER_RESOLVER_TIMEOUT', message, { id, timeoutMs });
}

function nobodyWaits(id: string): OpenLoraError {
  return new OpenLoraError('ERR_ABORTED', `adapterResolver: no request waits for '${id}' any more`, { id });
}
