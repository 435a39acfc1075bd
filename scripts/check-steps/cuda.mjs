// The kernels of cuda/kernels as device images: compiled by both versions of NVRTC, for every architecture.

import { mkdirSync } from 'node:fs';
import { basename, join } from 'node:path';
import { filesUnder, root } from '../files.mjs';
import { allOf, commands, execute } from './run.mjs';

const FOLDER = 'build/cuda-images';
const COMPILER = `${FOLDER}/compile_images`;

const buildCompiler = [
  process.env.CXX ?? 'c++',
  ...['-std=c++20', '-O1', '-Wall', '-Wextra', '-Wpedantic', '-Wshadow', '-Wcast-qual', '-Werror'],
  ...['-o', COMPILER, 'cuda/images/compile_images.cc', '-ldl'],
];

/** Lines `CUDA <major>: <path>` of fetch.mjs as [{ major, nvrtc }]. */
const toolkitsIn = (log) => [...log.matchAll(/^CUDA (\d+): (\/.*)$/gm)].map(([, major, nvrtc]) => ({ major, nvrtc }));

/** A line of architectures: `fine: sm_80 sm_90`. */
const architecturesIn = (log, what) => new RegExp(`^${what}:(.*)$`, 'm').exec(log)?.[1].trim().split(' ') ?? [];

/** Rows of the table: [{ kernel, architecture, registers, stack }]. */
const usagesIn = (log) =>
  [...log.matchAll(/^(\S+) +(sm_\d+) +(\d+) +\d+ +(\d+) +\d+$/gm)].map(
    ([, kernel, architecture, registers, stack]) => ({
      kernel,
      architecture,
      registers: Number(registers),
      stack: Number(stack),
    }),
  );

/** Compiles one kernel file for every architecture. */
async function compiled({ major, nvrtc, stem }) {
  const options = ['--nvrtc', nvrtc, '--root', 'cuda', '--out', join(FOLDER, major)];
  return { major, ...(await execute([COMPILER, ...options, stem])) };
}

/** The most registers that a kernel needs anywhere, those that need most first; and each kernel with arrays in memory. */
function notesOf(jobs) {
  const most = new Map();
  for (const { major, log } of jobs)
    for (const usage of usagesIn(log))
      if (usage.registers > (most.get(usage.kernel)?.registers ?? -1)) most.set(usage.kernel, { ...usage, major });
  const usages = jobs.flatMap(({ log }) => usagesIn(log));
  const onStack = [...new Set(usages.filter(({ stack }) => stack > 0).map(({ kernel }) => kernel))];
  const lines = [...most.values()]
    .sort((a, b) => b.registers - a.registers)
    .slice(0, 8)
    .map(
      ({ kernel, registers, architecture, major }) =>
        `${kernel}: ${registers} registers (${architecture}, CUDA ${major})`,
    );
  return onStack.length > 0 ? [...lines, `with a stack frame: ${onStack.join(', ')}`] : lines;
}

/** One case for each version of NVRTC and architecture: every kernel file compiles in silence and spills nothing. */
export async function cudaImages() {
  const fetched = await execute([process.execPath, 'scripts/cuda/fetch.mjs']);
  if (!fetched.isOk) return { passed: 0, failed: 1, skipped: 0, log: fetched.log, notes: [] };
  mkdirSync(join(root, FOLDER), { recursive: true });
  const built = await commands([buildCompiler]);
  if (built.failed > 0) return built;
  const stems = filesUnder('cuda/kernels', /\.cuh$/).map((path) => basename(path, '.cuh'));
  const toolkits = toolkitsIn(fetched.log);
  const jobs = await allOf(stems.flatMap((stem) => toolkits.map((toolkit) => () => compiled({ ...toolkit, stem }))));
  const result = { passed: 0, failed: 0, skipped: 0, log: '', notes: notesOf(jobs) };
  for (const { major } of toolkits) {
    const ofVersion = jobs.filter((job) => job.major === major);
    const wanted = new Set(ofVersion.flatMap(({ log }) => architecturesIn(log, 'architectures')));
    const isFine = (one) => ofVersion.every(({ log }) => architecturesIn(log, 'fine').includes(one));
    const passed = [...wanted].filter(isFine).length;
    const isBroken = passed === wanted.size && ofVersion.some(({ isOk }) => !isOk);
    result.passed += passed;
    result.failed += wanted.size === 0 || isBroken ? 1 : wanted.size - passed;
  }
  result.log = jobs.map(({ isOk, log }) => (isOk ? '' : log)).join('');
  return result;
}
