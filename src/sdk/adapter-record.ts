// What is kept of a registered adapter: 10,000 of them are to take bytes, so what they have alike is kept once, and none has
// a list, a promise or a closure of its own.

import { createHash } from 'node:crypto';
import type { AdapterDescription, BaseSite, FormatWarning } from '../formats/types.js';
import type { ChatTemplateSource } from '../formats/tokenizer-types.js';

/** One generation of an adapter. */
export class AdapterEntry {
  /** Both known once the engine has hashed it. */
  generation = '';
  bytes = 0;
  /** Requests that name it and have not reached the engine. */
  preparing = 0;
  isHidden = false;

  constructor(
    /** Of (tenant, id): {@link keyOf}. */
    readonly key: string,
    readonly handle: number,
    readonly rankMin: number,
    readonly rankMax: number,
    readonly parameters: number,
    /** See {@link SiteSets}. */
    readonly sites: string,
    readonly warnings: Shared<FormatWarning[]> | undefined,
    readonly chat: Shared<ChatTemplateSource> | undefined,
    /** What its tensors were spooled to, if they were given in memory; 0: nothing. */
    readonly spooled: number,
    /** Whether a resolver gave it. */
    readonly isResolved: boolean,
  ) {}

  get id(): string {
    return this.key.slice(this.key.indexOf('\0') + 1);
  }

  get tenant(): string | undefined {
    const end = this.key.indexOf('\0');
    return end === 0 ? undefined : this.key.slice(0, end);
  }
}

/** Neither part has control characters. */
export function keyOf(id: string, tenant: string | undefined): string {
  return `${tenant ?? ''}\0${id}`;
}

/** The same key, as text of its own: an id may be a piece of a large text, which it would keep in memory. */
export function keptKeyOf(id: string, tenant: string | undefined): string {
  return [tenant ?? '', id].join('\0');
}

/** A value that several adapters have. */
export interface Shared<T> {
  readonly value: T;
  readonly digest: string;
  uses: number;
}

/** Plain values, equal ones once: the warnings and the chat template of adapters that were trained alike. */
export class SharedValues<T> {
  /** A template may be long: its digest stands for it. */
  readonly #byDigest = new Map<string, Shared<T>>();

  get size(): number {
    return this.#byDigest.size;
  }

  take(value: T): Shared<T> {
    const digest = createHash('sha256').update(JSON.stringify(value)).digest('base64');
    const found = this.#byDigest.get(digest);
    if (found !== undefined) {
      found.uses++;
      return found;
    }
    const made = { value, digest, uses: 1 };
    this.#byDigest.set(digest, made);
    return made;
  }

  release(shared: Shared<T> | undefined): void {
    if (shared !== undefined && --shared.uses === 0) this.#byDigest.delete(shared.digest);
  }
}

/** Sets of a base's sites as text, a character for eight sites: a list of names would take a hundred times as much. */
export class SiteSets {
  /** In the order of their numbers. */
  readonly #names: string[];
  readonly #indexes: ReadonlyMap<string, number>;

  constructor(sites: readonly BaseSite[]) {
    this.#names = [...sites].sort((a, b) => a.site - b.site).map(({ name }) => name);
    this.#indexes = new Map(this.#names.map((name, index) => [name, index]));
  }

  pack(names: AdapterDescription['sites']): string {
    const bits = Buffer.alloc(Math.ceil(this.#names.length / 8));
    for (const name of names) {
      const index = this.#indexes.get(name);
      if (index === undefined) throw new Error(`${name} is no site of the base`);
      bits[index >> 3]! |= 1 << (index & 7);
    }
    return bits.toString('latin1');
  }

  unpack(set: string): string[] {
    return this.#names.filter((_, index) => (set.charCodeAt(index >> 3) >> (index & 7)) & 1);
  }
}
