// Plants faults, one at a time, in a copy of their kernel file, builds openlora_cuda_tests with it and runs the tests of that
// file: every one must be found. Those of kernels/<a_name>.cuh, and of the `-inl.h` that it includes, stand in <a-name>.mjs;
// every `from` stands once there.
// node test/sim/cuda_mutations/run.mjs [--every n] [--of name] [build folder]; the build folder must hold a built
// openlora_cuda_tests. --every: of each file the first of every n faults. Prints those that weren't found and a line
// `N passed, N failed`.

import { execFile, execFileSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { basename, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs, promisify } from 'node:util';
import { allOf } from '../../../scripts/check-steps/run.mjs';

const { values, positionals } = parseArgs({
  options: { every: { type: 'string', default: '1' }, of: { type: 'string' } },
  allowPositionals: true,
});
const run = promisify(execFile);
const root = fileURLToPath(new URL('../../../', import.meta.url));
const build = resolve(positionals[0] ?? join(root, 'build/release'));
const folder = join(build, 'cuda_mutations');
const RUN_MS = 60_000;

/** Faults of one file, with the tests that run its kernels. */
async function mutationsOf(name) {
  const { mutations } = await import(`./${name}.mjs`);
  const [family] = name.split('-');
  const filter = `*Cuda${family[0].toUpperCase()}${family.slice(1)}*`;
  return mutations.map((mutation) => ({ ...mutation, file: `cuda/kernels/${name.replace('-', '_')}.cuh`, filter }));
}

const names = readdirSync(new URL('.', import.meta.url))
  .map((file) => basename(file, '.mjs'))
  .filter((name) => name !== 'run' && (values.of === undefined || name === values.of));
const mutations = (await Promise.all(names.map(mutationsOf))).flatMap((list) =>
  list.filter((_, index) => index % Number(values.every) === 0),
);

const compileCommands = JSON.parse(readFileSync(join(build, 'compile_commands.json'), 'utf8'));
const linkCommand = execFileSync('ninja', ['-C', build, '-t', 'commands', 'openlora_cuda_tests'], { encoding: 'utf8' })
  .trim()
  .split('\n')
  .at(-1);

/** Each first text, which stands there once, replaced by its second. */
function replaced(text, ...edits) {
  return edits.reduce((before, [from, to]) => {
    if (before.split(from).length !== 2) throw new Error(`stands ${before.split(from).length - 1} times: ${from}`);
    return before.replace(from, () => to);
  }, text);
}

/** A kernel file with its `-inl.h` in place. */
const textOf = (source) =>
  readFileSync(source, 'utf8').replace(/#include "(kernels\/[\w]+-inl\.h)"/, (_, path) =>
    readFileSync(join(root, 'cuda', path), 'utf8').replace('#pragma once', ''),
  );

/** Whether it was found, and how. */
async function plant(mutation, number) {
  const source = join(root, mutation.file);
  const own = join(folder, String(number));
  const [copy, object, program] = [join(own, basename(source)), join(own, 'kernel.o'), join(own, 'tests')];
  mkdirSync(own, { recursive: true });
  const { from, to, also = [] } = mutation;
  writeFileSync(copy, replaced(textOf(source), [from, to], ...also));
  const { command } = compileCommands.find(({ file }) => file === source);
  const output = / -o (\S+)/.exec(command)[1];
  const compile = replaced(
    command,
    [` -c ${source}`, ` -c ${copy}`],
    [output, object],
    [' -Werror', ''],
    ['-O1 -g1', '-O0'],
  );
  await run('sh', ['-c', compile], { cwd: build });
  const link = replaced(linkCommand, [output, object], ['-o openlora_cuda_tests', `-o ${program}`]);
  await run('sh', ['-c', link], { cwd: build });
  const filter = `--gtest_filter=${mutation.filter}`;
  try {
    await run(program, [filter, '--gtest_fail_fast', '--gtest_brief=1'], { timeout: RUN_MS, killSignal: 'SIGKILL' });
    return undefined;
  } catch (error) {
    return /\[seed .*|exceeds .*|Expected .*/.exec(error.stdout)?.[0] ?? (error.killed ? 'no end' : 'a crash');
  } finally {
    rmSync(own, { recursive: true });
  }
}

const began = performance.now();
const missed = [];
await allOf(
  mutations.map((mutation, number) => async () => {
    const about = `${mutation.file}: ${mutation.kind}: ${mutation.from}`;
    try {
      if (!(await plant(mutation, number))) missed.push(`${about} -> ${mutation.to}`);
    } catch (error) {
      missed.push(`${about}\n    ${String(error.stderr ?? error.message).slice(0, 2000)}`);
    }
  }),
);
for (const text of missed) console.log(`not found: ${text}`);
console.log(`${((performance.now() - began) / 1000).toFixed(0)} s`);
console.log(`${mutations.length - missed.length} passed, ${missed.length} failed`);
process.exit(missed.length > 0 ? 1 : 0);
