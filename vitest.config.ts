import { availableParallelism } from 'node:os';
import { defineConfig } from 'vitest/config';

const notUnit = ['test/tidy/**', 'test/package/**', 'test/long/**', 'test/cuda-addon/**'];

// A worker thread can't run TypeScript.
const globalSetup = ['test/support/build-workers.ts'];

/** After which a test hangs: the longest take ten seconds, and three or four times that where the machine has other work. */
const HANG_MS = 120_000;

export default defineConfig({
  test: {
    // vitest would leave one processor alone.
    maxWorkers: availableParallelism(),
    projects: [
      { test: { name: 'unit', include: ['test/**/*.test.ts'], exclude: notUnit, globalSetup, testTimeout: HANG_MS } },
      { test: { name: 'tidy', include: ['test/tidy/**/*.test.ts'], testTimeout: 30_000 } },
      { test: { name: 'package', include: ['test/package/**/*.test.ts'], testTimeout: 300_000, hookTimeout: 300_000 } },
      // On the addon's variants for GPUs.
      { test: { name: 'cuda', include: ['test/cuda-addon/**/*.test.ts'], testTimeout: HANG_MS } },
      // The property tests of `unit` once more, for OPENLORA_LONG.
      { test: { name: 'property', include: ['test/property/**/*.test.ts'], globalSetup, testTimeout: 1_800_000 } },
      {
        test: {
          name: 'long',
          globalSetup,
          // What asserts milliseconds is here: a busy machine is no reason for a commit to fail.
          include: ['test/long/**/*.test.ts'],
          testTimeout: 1_800_000,
          hookTimeout: 600_000,
        },
      },
    ],
  },
});
