// Small checks that say what, what was got, and what was wanted.

import { OpenLoraError } from '../errors.js';

/** Throws ERR_INVALID_OPTION. */
export function invalid(what: string, got: unknown, wanted: string): never {
  throw new OpenLoraError('ERR_INVALID_OPTION', `${what}: got ${show(got)}, wanted ${wanted}`, { option: what });
}

/** A value in a message: short, on one line. */
export function show(value: unknown): string {
  if (typeof value === 'string') return JSON.stringify(value.length > 60 ? `${value.slice(0, 60)}…` : value);
  if (typeof value === 'bigint') return `${value}n`;
  if (value === null || value === undefined || typeof value === 'number' || typeof value === 'boolean') {
    return String(value);
  }
  if (Array.isArray(value)) return `an array of ${value.length}`;
  return typeof value === 'function' ? 'a function' : `a ${typeof value}`.replace('a object', 'an object');
}

export function checkObject(what: string, value: unknown): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) invalid(what, value, 'an object');
  return value as Record<string, unknown>;
}

/** Refuses keys that `known` doesn't have (ERR_UNKNOWN_OPTION), also those set to undefined. */
export function checkKeys(
  what: string,
  value: Record<string, unknown>,
  known: Readonly<Record<string, unknown>>,
): void {
  for (const key of Object.keys(value)) {
    if (Object.hasOwn(known, key)) continue;
    const near = Object.keys(known).find((name) => isNear(key, name));
    const hint = near ? `did you mean '${near}'?` : `known are ${Object.keys(known).join(', ')}`;
    throw new OpenLoraError('ERR_UNKNOWN_OPTION', `${what}: option ${show(key)} is unknown; ${hint}`, { option: key });
  }
}

export function checkInteger(what: string, value: unknown, min: number, max: number): number {
  if (typeof value !== 'number' || !Number.isInteger(value) || value < min || value > max) {
    invalid(what, value, `an integer from ${min} to ${max}`);
  }
  return value;
}

/** `wanted` describes the range, which may be open at an end. */
export function checkNumber(what: string, value: unknown, isGood: (value: number) => boolean, wanted: string): number {
  if (typeof value !== 'number' || !isGood(value)) invalid(what, value, wanted);
  return value;
}

export function checkBoolean(what: string, value: unknown): boolean {
  if (typeof value !== 'boolean') invalid(what, value, 'true or false');
  return value;
}

export function checkFunction(what: string, value: unknown): void {
  if (typeof value !== 'function') invalid(what, value, 'a function');
}

/** `length` counts UTF-16 units. */
export function checkText(what: string, value: unknown, minLength: number, maxLength: number): string {
  if (typeof value !== 'string' || value.length < minLength || value.length > maxLength) {
    const got = typeof value === 'string' && value.length > maxLength ? `${value.length} characters` : undefined;
    const wanted = `a string of ${minLength} to ${maxLength} characters`;
    if (got === undefined) invalid(what, value, wanted);
    throw new OpenLoraError('ERR_INVALID_OPTION', `${what}: got ${got}, wanted ${wanted}`, { option: what });
  }
  return value;
}

/** Of a file or folder. */
export function checkPath(what: string, value: unknown): string {
  const path = checkText(what, value, 1, 4096);
  if (path.includes('\u0000')) invalid(what, value, 'no null character');
  return path;
}

/** An origin, perhaps with a path; without a slash at its end. Throws ERR_INVALID_OPTION. */
export function checkUrl(what: string, value: unknown): string {
  const text = checkText(what, value, 1, 2048);
  const url = URL.canParse(text) ? new URL(text) : undefined;
  const isHttp = url !== undefined && /^https?:$/.test(url.protocol);
  if (isHttp && `${url.search}${url.hash}${url.username}${url.password}` === '') return url.href.replace(/\/+$/, '');
  if (!text.includes('@')) invalid(what, value, 'http://HOST or https://HOST');
  // Never the value, which may have a password: messages are logged.
  const message = `${what}: wanted http://HOST or https://HOST, without a user or a password`;
  throw new OpenLoraError('ERR_INVALID_OPTION', message, { option: what });
}

/** An adapter's id or a tenant's name. */
export function checkName(what: string, value: unknown): string {
  const name = checkText(what, value, 1, 256);
  // eslint-disable-next-line no-control-regex
  if (/[\u0000-\u001f\u007f]/.test(name)) invalid(what, value, 'no control characters');
  return name;
}

export function checkOneOf<T extends string>(what: string, value: unknown, names: readonly T[]): T {
  const found = names.find((name) => name === value);
  if (found === undefined) invalid(what, value, `one of ${names.join(', ')}`);
  return found;
}

export function checkSignal(what: string, value: unknown): AbortSignal {
  const signal = value as Partial<AbortSignal> | null;
  if (typeof signal !== 'object' || signal === null || typeof signal.aborted !== 'boolean') {
    invalid(what, value, 'an AbortSignal');
  }
  if (typeof signal.addEventListener !== 'function') invalid(what, value, 'an AbortSignal');
  return value as AbortSignal;
}

/** Equal but for case and for one run of at most two characters. */
function isNear(a: string, b: string): boolean {
  const [short, long] = a.length <= b.length ? [a.toLowerCase(), b.toLowerCase()] : [b.toLowerCase(), a.toLowerCase()];
  if (long.length < 4) return short === long;
  let front = 0;
  while (front < short.length && short[front] === long[front]) front++;
  let back = 0;
  while (back < short.length - front && short[short.length - 1 - back] === long[long.length - 1 - back]) back++;
  return long.length - front - back <= 2;
}
