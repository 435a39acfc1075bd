// The fuzz targets of test/fuzz, each for some seconds.

import { mkdirSync, rmSync } from 'node:fs';
import { basename, join } from 'node:path';
import { cmakeCommands } from '../cmake.mjs';
import { filesUnder, root } from '../files.mjs';
import { allOf, commands, execute, merged } from './run.mjs';

const BUILD = 'build/fuzz';
// More than any target reads: a longer input would be cut short by its end.
const INPUT_BYTES_MAX = 600;

/** One target. The committed corpus always runs first; new inputs go to `found`. */
async function fuzzTarget(name, seconds, found) {
  mkdirSync(join(root, found), { recursive: true });
  const options = [
    `-max_total_time=${seconds}`,
    `-max_len=${INPUT_BYTES_MAX}`,
    '-timeout=20',
    '-verbosity=1',
    '-print_final_stats=1',
    `-artifact_prefix=${BUILD}/${name}-`,
  ];
  const command = [`${BUILD}/fuzz_${name}`, ...options, found, `test/fuzz/corpus/${name}`];
  const { isOk, log } = await execute(command, { UBSAN_OPTIONS: 'print_stacktrace=1' });
  const runs = /Done (\d+) runs in (\d+) second/.exec(log);
  const seed = /INFO: Seed: (\d+)/.exec(log)?.[1];
  const about = runs ? `${runs[1]} inputs in ${runs[2]} s` : `ended early, log above; seed ${seed}`;
  const counts = { passed: isOk ? 1 : 0, failed: isOk ? 0 : 1, skipped: 0 };
  return { ...counts, log, notes: [`${name}: ${about}`] };
}

/** Builds the targets and runs each for `seconds`; `keeps`: what is found is kept, and the next such run begins with it. */
export async function fuzz(seconds, keeps) {
  const definitions = { OPENLORA_FUZZ: 'ON', CMAKE_CXX_COMPILER: 'clang++' };
  const built = await commands(cmakeCommands(root, BUILD, definitions));
  if (built.failed > 0) return built;
  const jobs = filesUnder('test/fuzz', /_fuzz\.cc$/).map((source) => () => {
    const name = basename(source, '_fuzz.cc');
    const found = keeps ? `build/fuzz-corpus/${name}` : `${BUILD}/found/${name}`;
    if (!keeps) rmSync(join(root, found), { recursive: true, force: true });
    return fuzzTarget(name, seconds, found);
  });
  return merged(await allOf(jobs));
}
