// Adapters that are brought nearer ahead of requests: the calls that wait for them.

import type { OpenLoraError } from '../errors.js';
import type { NativeEngine, NativeHold } from '../native/binding.js';
import { Deferred } from './deferred.js';

export class Holds {
  readonly #waiting = new Map<number, Deferred<void>>();
  #tickets = 0;

  constructor(private readonly engine: Pick<NativeEngine, 'holdAdapter'>) {}

  /** Resolves when the adapter is there. */
  hold(handle: number, kind: NativeHold): Promise<void> {
    const ticket = ++this.#tickets;
    const held = new Deferred<void>();
    this.#waiting.set(ticket, held);
    try {
      this.engine.holdAdapter(handle, ticket, kind);
    } catch (error) {
      this.#waiting.delete(ticket);
      throw error;
    }
    return held.promise;
  }

  onHeld(ticket: number, error: OpenLoraError | undefined): void {
    const held = this.#waiting.get(ticket);
    this.#waiting.delete(ticket);
    if (error === undefined) held?.resolve();
    else held?.reject(error);
  }

  close(error: OpenLoraError): void {
    for (const held of this.#waiting.values()) held.reject(error);
    this.#waiting.clear();
  }
}
