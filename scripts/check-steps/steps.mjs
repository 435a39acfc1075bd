// The steps of npm run check, in order. A step: name, what it checks, the steps that it can't go without, run().

import { spawnSync } from 'node:child_process';
import { cmakeCommands } from '../cmake.mjs';
import { root } from '../files.mjs';
import { cudaCoverage } from './coverage.mjs';
import { cudaVariants } from './cuda.mjs';
import { fuzz } from './fuzz.mjs';
import { aarch64, nodeMatrix } from './long.mjs';
import { commands, googleTest, merged, vitest } from './run.mjs';

const node = (...args) => [process.execPath, ...args];
// The variants for GPUs are a step of their own.
const noVariants = { OPENLORA_WERROR: 'ON', OPENLORA_CUDA_TOOLKIT: '' };

// gcc 12's ThreadSanitizer can't map its shadow where the kernel randomises 32 bits of an address (Linux 6.6 and later).
const canFixAddresses = spawnSync('setarch', ['-R', 'true'], { stdio: 'ignore' }).status === 0;
const fixedAddresses = canFixAddresses ? ['setarch', '-R'] : [];

/**
 * Sanitizer builds hold the tests alone, and in check:long the simulator, which has one thread. Warnings are errors in the step
 * native-build: in instrumented code gcc 12 sees some that aren't there.
 */
async function sanitized(folder, sanitizers, env, prefix = []) {
  const hasSimulator = sanitizers !== 'thread' && env.OPENLORA_SMALL === undefined;
  const definitions = {
    OPENLORA_ADDON: 'OFF',
    OPENLORA_SIM: hasSimulator ? 'ON' : 'OFF',
    OPENLORA_SANITIZE: sanitizers,
  };
  const built = await commands(cmakeCommands(root, folder, definitions));
  if (built.failed > 0) return built;
  return googleTest(folder.replace('/', '-'), folder, env, prefix);
}

const withAsan = (env) => sanitized('build/asan', 'address,undefined', { UBSAN_OPTIONS: 'print_stacktrace=1', ...env });
const withTsan = (env) =>
  sanitized('build/tsan', 'thread', { TSAN_OPTIONS: 'halt_on_error=1', ...env }, fixedAddresses);

/** The log of a failure has the seed, and the command that replays it. */
async function simulate() {
  const first = String(Date.now() % 1e9);
  const result = await commands([
    ['build/release/openlora_sim', '--seeds', '1000', '--steps', '1000', '--first', first],
  ]);
  const about = /^(\d+) steps, nothing broken/m.exec(result.log)?.[0] ?? 'log above';
  return { ...result, notes: [`seeds from ${first}: ${about}`] };
}

// Kernels of another architecture don't compile here.
const clangTidy =
  "git ls-files 'cpp/*.cc' | grep -v level_neon | xargs -P $(nproc) -n 4 clang-tidy -p build/release --quiet --extra-arg=-Wno-unknown-warning-option";

export const fastSteps = [
  {
    name: 'format',
    about: 'clang-format and prettier',
    run: () => commands([node('scripts/format.mjs', '--check')]),
  },
  {
    name: 'lint',
    about: 'eslint, warnings count',
    run: () => commands([node('node_modules/eslint/bin/eslint.js', '--max-warnings', '0', '.')]),
  },
  {
    name: 'types',
    about: 'tsc',
    run: () => commands([node('node_modules/typescript/bin/tsc', '--noEmit')]),
  },
  {
    name: 'native-build',
    about: 'library, tests and addon; a compiler warning is an error',
    run: () => commands(cmakeCommands(root, 'build/release', noVariants)),
  },
  {
    name: 'tidy',
    about: 'rules of ARCHITECTURE.md and STYLE.md',
    needs: ['native-build'],
    run: () => vitest('tidy'),
  },
  {
    name: 'native',
    about: 'GoogleTest cases',
    needs: ['native-build'],
    run: () => googleTest('native', 'build/release'),
  },
  {
    name: 'cuda-mutations',
    about: 'faults planted in the CUDA kernels, each of which the simulated GPU must find: a fifth of them',
    needs: ['native-build'],
    run: () => commands([node('test/sim/cuda_mutations/run.mjs', '--every', '5')]),
  },
  {
    name: 'native-asan',
    about: 'small cases under AddressSanitizer and UndefinedBehaviorSanitizer',
    run: () => withAsan({ OPENLORA_SMALL: '1' }),
  },
  {
    name: 'native-tsan',
    about: 'small cases under ThreadSanitizer',
    run: () => withTsan({ OPENLORA_SMALL: '1' }),
  },
  {
    name: 'fuzz',
    about: "libFuzzer's targets: their corpus, then 9 seconds each",
    run: () => fuzz(9, false),
  },
  {
    name: 'bench',
    about: 'a short run of the native bench, results against the reference, and of the tokenizers',
    needs: ['native-build'],
    run: () =>
      commands([['build/release/openlora_bench', 'ops', '--quick'], node('bench/tokenizers.mjs', '--quick', 'llama2')]),
  },
  {
    name: 'ts-build',
    about: 'dist/',
    run: () => commands([['npm', 'run', '--silent', 'build:ts']]),
  },
  {
    name: 'cuda-variants',
    about:
      'the addon for CUDA 12 and 13, its kernels compiled for every architecture, and what it does without a driver',
    needs: ['native-build'],
    run: cudaVariants,
  },
  {
    name: 'unit',
    about: 'vitest, all but tidy, package, cuda and long',
    needs: ['native-build', 'ts-build'],
    run: () => vitest('unit'),
  },
  {
    name: 'package',
    about: 'the packed tarball in an empty project',
    needs: ['native-build', 'cuda-variants', 'ts-build'],
    run: async () => {
      const variants = ['cpu', 'cuda12', 'cuda13'];
      const built = await commands(variants.map((variant) => node('scripts/prebuild.mjs', variant)));
      return built.failed > 0 ? built : merged([built, await vitest('package')]);
    },
  },
];

export const longSteps = [
  {
    name: 'cuda-faults',
    about: 'all faults planted in the CUDA kernels',
    needs: ['native-build'],
    run: () => commands([node('test/sim/cuda_mutations/run.mjs')]),
  },
  {
    name: 'cuda-coverage',
    about: 'every line of the CUDA kernels is executed by their tests on the simulated GPU',
    run: cudaCoverage,
  },
  {
    name: 'native-long',
    about: 'GoogleTest with OPENLORA_LONG=1 and the disabled cases',
    needs: ['native-build'],
    run: () => googleTest('native-long', 'build/release', { OPENLORA_LONG: '1', GTEST_ALSO_RUN_DISABLED_TESTS: '1' }),
  },
  {
    name: 'sim-long',
    about: 'the simulator: 1,000 steps and more of each of 1,000 seeds, others each time',
    needs: ['native-build'],
    run: simulate,
  },
  {
    name: 'fuzz-long',
    about: '15 minutes each, over a corpus in build/fuzz-corpus that grows from run to run',
    run: () => fuzz(900, true),
  },
  {
    name: 'clang-tidy',
    about: 'clang-tidy over cpp/ (.clang-tidy)',
    needs: ['native-build'],
    run: () => commands([['sh', '-c', clangTidy]]),
  },
  {
    name: 'asan-long',
    about: 'all cases under AddressSanitizer and UndefinedBehaviorSanitizer',
    run: () => withAsan({}),
  },
  {
    name: 'tsan-long',
    about: 'all cases that share data between threads under ThreadSanitizer',
    run: () => withTsan({ GTEST_FILTER: 'MixedEquals*:Engine*:ThreadPool*' }),
  },
  {
    name: 'long',
    about: 'test/long',
    needs: ['native-build', 'ts-build'],
    run: () => vitest('long', { OPENLORA_LONG: '1' }),
  },
  {
    name: 'property',
    about:
      'test/property with a hundred times as many inputs, as far as 8 seconds a property go, of another seed each time',
    needs: ['native-build'],
    run: () => vitest('property', { OPENLORA_LONG: '1' }),
  },
  {
    name: 'node-matrix',
    about: 'unit tests and the packed tarball on Node 22, 24 and 26',
    needs: ['native-build', 'ts-build', 'package'],
    run: nodeMatrix,
  },
  {
    name: 'aarch64',
    about: 'cross build, GoogleTest under qemu (NEON)',
    run: aarch64,
  },
];
