// What `openlora bench adapters` has to show, found in its report.

import type { BenchReport, Line } from '../../src/cli/bench/report.js';

/** A number of a report, and the least that it should be; without `goal` it is shown beside the others. */
export type Found = Record<string, { value: number; goal?: number }>;

/** Within 10 % of a goal is met. */
export const CLOSE = 0.9;

/** Adapters in use over those that fit. */
const CAPACITY_TIMES = [0.5, 1, 2, 4, 8] as const;
/** Of a first token's p99, from one of these to the next. */
const CAPACITY_STEP = 3;
/** From so many registered on, less of the speed is wanted. */
const MANY = 10_000;

/** Of the most adapters that were registered. Throws for a line that isn't there. */
export function goalsOf({ lines, sizes }: BenchReport): Found {
  const count = Math.max(...String(sizes.registered).split(',').map(Number));
  const many = `${count.toLocaleString('en-US')} registered`;
  const line = (name: string) => named(lines, name);
  const of = (name: string) => line(`${many}, ${name}`);
  const over = (one: Line, other: Line) => one.median / other.median;
  const others = (kind: string) => of(`next token of others p99, ${kind}`);
  const quiet = others('quiet');
  return {
    'registering the 10th, over the last': {
      value: over(of('registering the 10th'), of('registering the last')),
      goal: 1 / 1.1,
    },
    'zipf, of all resident': { value: retentionOf(of('zipf')), goal: count < MANY ? 0.97 : 0.92 },
    'uniform, over zipf': { value: over(of('uniform'), of('zipf')), goal: 0.8 },
    'next token of others p99, quiet over loads from host memory': {
      value: over(quiet, others('loads from host memory')),
      goal: 1 / 1.1,
    },
    'next token of others p99, quiet over first packing': {
      value: over(quiet, others('first packing')),
      goal: 1 / 1.5,
    },
    'next token of others p99, quiet over quiet again': { value: over(quiet, others('quiet again')) },
    ...capacityGoals(lines),
    'base alone, of the base without adapters': { value: retentionOf(of('base alone')), goal: 0.98 },
    'base alone, one without adapters over another': { value: retentionOf(of('base alone on a third')) },
  };
}

/** Each point beside its left neighbour: a slope, no cliff. */
function capacityGoals(lines: readonly Line[]): Found {
  const p99 = CAPACITY_TIMES.map((times) => {
    const found = lines.find(({ name }) => name.startsWith(`${times} × the `) && name.endsWith(', first token p99'));
    if (!found) throw new Error(`no first token p99 of ${times} × those that fit`);
    return found.median;
  });
  return Object.fromEntries(
    CAPACITY_TIMES.slice(1).map((times, i) => [
      `first token p99, ${CAPACITY_TIMES[i]!} × over ${times} × those that fit`,
      { value: p99[i]! / p99[i + 1]!, goal: 1 / CAPACITY_STEP },
    ]),
  );
}

function named(lines: readonly Line[], name: string): Line {
  const found = lines.find((line) => line.name === name);
  if (!found) throw new Error(`no line '${name}' among ${lines.map((line) => line.name).join('; ')}`);
  return found;
}

function retentionOf({ name, retention }: Line): number {
  if (retention === undefined) throw new Error(`'${name}' has no retention`);
  return retention;
}

/** What isn't met, in words. */
export function missedOf(found: Found): string[] {
  return Object.entries(found).flatMap(([what, { value, goal }]) =>
    goal === undefined || value >= CLOSE * goal ? [] : [`${what}: ${value.toFixed(2)}, wanted ${goal.toFixed(2)}`],
  );
}

/** The better of each number. */
export function bestOf(one: Found, other: Found): Found {
  return Object.fromEntries(
    Object.entries(one).map(([what, found]) => [what, other[what]!.value > found.value ? other[what]! : found]),
  );
}
