// Property tests: inputs by fast-check, a few in every check, always the same, so that a change alone can make it fail; many
// with OPENLORA_LONG, of another seed each time and for 8 seconds or so. A failure prints seed and path; OPENLORA_PROPERTY_SEED and
// OPENLORA_PROPERTY_PATH give them back.

import fc from 'fast-check';
import { expect } from 'vitest';
import { OpenLoraError } from '../../src/errors.js';

const isLong = process.env.OPENLORA_LONG !== undefined;
const { OPENLORA_PROPERTY_PATH: path } = process.env;
export const SEED = Number(process.env.OPENLORA_PROPERTY_SEED ?? (isLong ? Date.now() % 2 ** 31 : 20_261_127));

/**
 * Milliseconds of processor time that one input may take. The longest takes a second or two, as the machine is; a hang takes for
 * ever: in every check it is told from that alone.
 */
const CPU_MS_MAX = isLong ? 3000 : 15_000;

/** The long run has as many rounds of a property, each of another seed, but begins none after so many milliseconds. */
const [LONG_ROUNDS, LONG_MS_MAX] = [100, 8000];

/** `runs`: in every check; in the long one so many in each round. */
export async function holds<T>(arbitrary: fc.Arbitrary<T>, check: (value: T) => unknown, runs = 200): Promise<void> {
  const property = fc.asyncProperty(arbitrary, async (value) => {
    const began = process.cpuUsage();
    await check(value);
    const { user, system } = process.cpuUsage(began);
    expect((user + system) / 1000, 'milliseconds of processor time').toBeLessThan(CPU_MS_MAX);
  });
  const rounds = isLong && path === undefined ? LONG_ROUNDS : 1;
  const end = performance.now() + LONG_MS_MAX;
  for (let round = 0; round === 0 || (round < rounds && performance.now() < end); round++) {
    await fc.assert(property, { numRuns: runs, seed: (SEED + round) | 0, ...(path === undefined ? {} : { path }) });
  }
}

/** What `run` gives, or undefined where it is refused by one of `codes`. Any other error is the property's failure. */
export async function coded<T>(codes: RegExp, run: () => T | Promise<T>): Promise<T | undefined> {
  try {
    return await run();
  } catch (error) {
    if (!OpenLoraError.is(error)) throw error;
    expect(error.code).toMatch(codes);
    expect(error.message).not.toBe('');
    return undefined;
  }
}

/** Values that readers of numbers and names stumble over, and any JSON. */
export const oddValue: fc.Arbitrary<unknown> = fc.oneof(
  fc.constantFrom<unknown>(null, true, false, 0, -0, -1, 0.5, 1e300, 2 ** 31, 2 ** 32, 2 ** 53, '', 'auto', [], {}, [
    [],
  ]),
  fc.constantFrom<unknown>('__proto__', 'constructor', '\u0000', '\ud800', '..', '../x', 'a/b', 'C:\\x'),
  fc.integer(),
  fc.double(),
  fc.string({ unit: 'binary', maxLength: 20 }),
  fc.jsonValue({ maxDepth: 3 }),
);

export type Change = { at: number; how: 'set' | 'remove' | 'add'; value: unknown; key: string };

const change: fc.Arbitrary<Change> = fc.record({
  at: fc.nat(),
  how: fc.constantFrom('set', 'set', 'set', 'remove', 'add'),
  value: oddValue,
  key: fc.oneof(fc.constantFrom('type', 'id', '__proto__', 'toString'), fc.string({ maxLength: 8 })),
});

/** Up to four changes of an example, for {@link changed}. */
export const changes: fc.Arbitrary<Change[]> = fc.array(change, { maxLength: 4 });

/** The JSON text of `example` with the changes made, each anywhere in its tree. */
export function changed(example: unknown, list: readonly Change[]): string {
  const root = { value: JSON.parse(JSON.stringify(example)) as unknown };
  for (const { at, how, value: shared, key } of list) {
    // fast-check gives the same [] and {} to many runs.
    const value = structuredClone(shared);
    const places: [Record<string, unknown>, string][] = [];
    const visit = (holder: Record<string, unknown>, name: string): void => {
      places.push([holder, name]);
      const inner = holder[name];
      if (typeof inner !== 'object' || inner === null) return;
      for (const next of Object.keys(inner)) visit(inner as Record<string, unknown>, next);
    };
    visit(root, 'value');
    const [holder, name] = places[at % places.length]!;
    const inner = holder[name];
    if (how === 'remove') Reflect.deleteProperty(holder, name);
    else if (how === 'add' && Array.isArray(inner)) inner.push(value);
    else if (how === 'add' && typeof inner === 'object' && inner !== null)
      (inner as Record<string, unknown>)[key] = value;
    else holder[name] = value;
  }
  return JSON.stringify(root.value) ?? 'null';
}

/** Changes of bytes: each replaces, inserts or removes. */
export const byteChanges: fc.Arbitrary<{ at: number; how: number; byte: number }[]> = fc.array(
  fc.record({
    at: fc.nat(),
    how: fc.nat({ max: 2 }),
    byte: fc.oneof(fc.constantFrom(0x22, 0x2c, 0x3a, 0x5b, 0x5d, 0x5c, 0x7b, 0x7d, 0x30, 0x39), fc.nat({ max: 255 })),
  }),
  { maxLength: 4 },
);

export function withBytes(source: Uint8Array, list: readonly { at: number; how: number; byte: number }[]): Buffer {
  const bytes = [...source];
  for (const { at, how, byte } of list) {
    const place = at % (bytes.length + 1);
    if (how === 0) bytes[place] = byte;
    else if (how === 1) bytes.splice(place, 0, byte);
    else bytes.splice(place, 1);
  }
  return Buffer.from(bytes);
}
