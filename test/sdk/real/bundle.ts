// Bundles TypeScript for processes and worker threads of Node, which can't run it, beside openlora's workers.

import { mkdirSync, mkdtempSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { workerEntries } from '../../support/build-workers.js';

const root = fileURLToPath(new URL('../../../', import.meta.url));

/** The folder that `entry`'s bundle is in, as `<its name>.js`; the caller removes it. */
export async function bundleForThreads(entry: string): Promise<string> {
  mkdirSync(join(root, '.cache'), { recursive: true });
  // In the repository, so that the package's own folder and its dependencies are found.
  const folder = mkdtempSync(join(root, '.cache/bundle-'));
  await build({
    entryPoints: [entry, ...Object.values(workerEntries)],
    outdir: folder,
    entryNames: '[name]',
    bundle: true,
    platform: 'node',
    format: 'esm',
    target: 'node20',
    packages: 'external',
  });
  return folder;
}
