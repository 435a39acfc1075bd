import { OpenLoraError } from '../errors.js';
import { isJsonObject, type JsonObject } from './json.js';

/** No size in a config is larger: products of three stay exact in a double. */
export const COUNT_MAX = 1 << 24;

/** The engine computes in float32; below this it has fewer digits, and at last 0. */
const NORMAL_MIN = 2 ** -126;

/** Typed reads of one JSON object. Each throws `code` with the key, what was got, and what was wanted. */
export class ConfigReader {
  constructor(
    readonly object: JsonObject,
    private readonly where: string,
    private readonly code: string,
  ) {}

  /** The value, or undefined when the key is missing or null. */
  get(key: string): unknown {
    return Object.hasOwn(this.object, key) ? (this.object[key] ?? undefined) : undefined;
  }

  /** Whether the key is there, null or not: a missing key means a default, a null one none. */
  has(key: string): boolean {
    return Object.hasOwn(this.object, key);
  }

  /** An integer in [min, max]. */
  count(key: string, fallback?: number, min = 1, max = COUNT_MAX): number {
    const value = this.get(key) ?? fallback;
    if (!Number.isSafeInteger(value) || (value as number) < min || (value as number) > max) {
      throw this.fail(key, value, `an integer in [${min}, ${max}]`);
    }
    return value as number;
  }

  /** Finite in float32, too. */
  number(key: string, fallback?: number): number {
    const value = this.get(key) ?? fallback;
    if (typeof value !== 'number' || !Number.isFinite(value)) throw this.fail(key, value, 'a number');
    if (!Number.isFinite(Math.fround(value))) throw this.fail(key, value, 'a float32');
    return value;
  }

  /** Over 0 in float32, too, and so is its inverse. */
  positive(key: string, fallback?: number): number {
    const value = this.number(key, fallback);
    if (value <= 0) throw this.fail(key, value, 'a number over 0');
    if (value < NORMAL_MIN) throw this.fail(key, value, 'a normal float32');
    return value;
  }

  boolean(key: string, fallback: boolean): boolean {
    const value = this.get(key) ?? fallback;
    if (typeof value !== 'boolean') throw this.fail(key, value, 'true or false');
    return value;
  }

  string(key: string, fallback?: string): string {
    const value = this.get(key) ?? fallback;
    if (typeof value !== 'string') throw this.fail(key, value, 'a string');
    return value;
  }

  /** A list of strings; a missing key is an empty list. */
  strings(key: string): string[] {
    const value = this.get(key) ?? [];
    if (!Array.isArray(value) || !value.every((item) => typeof item === 'string')) {
      throw this.fail(key, value, 'a list of strings');
    }
    return value;
  }

  /** One token id or a list of them; undefined when the key is missing, empty when it is null. */
  tokens(key: string): number[] | undefined {
    if (!this.has(key)) return undefined;
    const value = this.get(key) ?? [];
    const list: unknown[] = Array.isArray(value) ? value : [value];
    if (!list.every((id) => Number.isSafeInteger(id))) throw this.fail(key, value, 'a token id or a list of them');
    return list as number[];
  }

  child(key: string): ConfigReader | undefined {
    const value = this.get(key);
    if (value === undefined) return undefined;
    if (!isJsonObject(value)) throw this.fail(key, value, 'an object');
    return new ConfigReader(value, `${this.where}: ${key}`, this.code);
  }

  /** The error for a value of `key` that can't be used. */
  fail(key: string, got: unknown, wanted: string): OpenLoraError {
    const shown = JSON.stringify(got) ?? 'missing';
    const text = shown.length > 80 ? `${shown.slice(0, 77)}...` : shown;
    return new OpenLoraError(this.code, `${this.where}: ${key} is ${text}, not ${wanted}`, { key });
  }
}
