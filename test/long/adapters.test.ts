// Thousands of adapters on the shape of Qwen2.5-0.5B beside what they have to show, by `openlora bench` itself: a run of five repeats
// takes ten minutes on a Zen 4; one of three half an hour on a Zen 3. Machines that are shared have bad minutes: the best of three
// runs counts, and within 10 % of a goal is met.

import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { BenchReport } from '../../src/cli/bench/report.js';
import { bestOf, goalsOf, missedOf, type Found } from './adapters-goals.js';

const cli = fileURLToPath(new URL('../../dist/cli.js', import.meta.url));
const RUNS = 3;
const REPEATS = '3';
const TIMEOUT_MS = RUNS * 3_600_000;

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'openlora-adapters-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

function bench(...words: string[]): BenchReport {
  // What is written once is used again by the other runs.
  const args = [cli, 'bench', 'adapters', ...words, '--folder', folder, '--json'];
  return JSON.parse(
    execFileSync(process.execPath, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }),
  ) as BenchReport;
}

/** The best of each number, until all are met. */
function best(run: () => Found): Found {
  let found = run();
  for (let runs = 1; runs < RUNS && missedOf(found).length > 0; runs++) found = bestOf(found, run());
  return found;
}

test(
  '1,000 adapters in int8, of which few fit',
  () => {
    const found = best(() => goalsOf(bench('--registered', '1000', '--dtype', 'int8', '--repeats', REPEATS)));
    for (const [what, { value, goal }] of Object.entries(found))
      console.log(`${what}: ${value.toFixed(2)}${goal === undefined ? '' : `, goal ${goal.toFixed(2)}`}`);
    expect(missedOf(found)).toEqual([]);
  },
  TIMEOUT_MS,
);
