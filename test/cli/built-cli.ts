// The CLI as one builds it, for tests that need a process of it.

import { build } from 'esbuild';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { workerEntries } from '../support/build-workers.js';

const root = fileURLToPath(new URL('../../', import.meta.url));

export interface BuiltCli {
  folder: string;
  /** For `node`. */
  script: string;
}

/** Into a folder inside the package, where its dependencies are found; the caller removes it. */
export async function buildCli(name: string): Promise<BuiltCli> {
  const folder = join(root, '.cache', `${name}-${process.pid}`);
  await build({
    entryPoints: { cli: join(root, 'src/cli/main.ts'), ...workerEntries },
    outdir: folder,
    bundle: true,
    splitting: true,
    platform: 'node',
    format: 'esm',
    target: 'node20',
    packages: 'external',
    logLevel: 'warning',
  });
  return { folder, script: join(folder, 'cli.js') };
}
