// vitest's global set-up: bundles the tokenizer's worker thread from its sources, because a worker can't run TypeScript.
// src/formats/tokenizer-client.ts says when the bundle is used.

import { mkdirSync, renameSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const root = fileURLToPath(new URL('../../', import.meta.url));

export async function buildTokenizerWorker(): Promise<void> {
  mkdirSync(`${root}.cache`, { recursive: true });
  const partial = `${root}.cache/tokenizer-worker.${process.pid}.mjs`;
  await build({
    entryPoints: [`${root}src/formats/tokenizer-worker.ts`],
    outfile: partial,
    bundle: true,
    platform: 'node',
    format: 'esm',
    target: 'node20',
    packages: 'external',
    logLevel: 'warning',
  });
  renameSync(partial, `${root}.cache/tokenizer-worker.mjs`); // test files that run at once never see half of it
}

export default buildTokenizerWorker;
