// vitest's global set-up: bundles the worker threads from their sources, because a worker can't run TypeScript.
// src/formats/worker-client.ts says when the bundles are used.

import { mkdirSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const root = fileURLToPath(new URL('../../', import.meta.url));
const NAMES = ['tokenizer-worker', 'folder-worker'];

/** Sources of the workers, for bundles that need them beside their own. */
export const workerEntries: Readonly<Record<string, string>> = Object.fromEntries(
  NAMES.map((name) => [name, join(root, `src/formats/${name}.ts`)]),
);

export async function buildWorkers(): Promise<void> {
  const folder = join(root, '.cache');
  mkdirSync(folder, { recursive: true });
  const partial = (name: string) => `${name}.${process.pid}`;
  await build({
    entryPoints: Object.fromEntries(NAMES.map((name) => [partial(name), workerEntries[name]!])),
    outdir: folder,
    outExtension: { '.js': '.mjs' },
    bundle: true,
    platform: 'node',
    format: 'esm',
    target: 'node20',
    packages: 'external',
    logLevel: 'warning',
  });
  // Test files that run at once never see half of one.
  for (const name of NAMES) renameSync(join(folder, `${partial(name)}.mjs`), join(folder, `${name}.mjs`));
}

export default buildWorkers;
