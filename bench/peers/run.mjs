// openlora beside llama.cpp and peft, in the same run: bench/peers/README.md.
//
//   node bench/peers/run.mjs [--help] [--quick] [options]
//
// Installs the peers into this folder's node_modules if they aren't there, bundles main.ts and the processes of the engines,
// and runs it.

import { spawnSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { build } from 'esbuild';

const here = fileURLToPath(new URL('.', import.meta.url));
const root = join(here, '../..');
/** Beside the peers' packages, which are found from here; of this process alone. */
const bundles = join(here, 'node_modules', `.openlora-${process.pid}`);

const args = process.argv.slice(2);
const { values } = parseArgs({
  args,
  strict: false,
  options: { llama: { type: 'string' }, help: { type: 'boolean' } },
});
if (values.llama !== 'none' && !values.help && !existsSync(join(here, 'node_modules', 'node-llama-cpp'))) {
  console.error('installing node-llama-cpp into bench/peers/node_modules');
  const install = ['ci', '--ignore-scripts', '--no-audit', '--no-fund'];
  const { status } = spawnSync('npm', install, { cwd: here, stdio: ['ignore', 'inherit', 'inherit'] });
  if (status !== 0) process.exit(1);
}

mkdirSync(bundles, { recursive: true });
process.once('exit', () => rmSync(bundles, { recursive: true, force: true }));
await build({
  entryPoints: {
    main: join(here, 'main.ts'),
    openlora: join(here, 'ours.ts'),
    'llama.cpp': join(here, 'llama.ts'),
    'tokenizer-worker': join(root, 'src/formats/tokenizer-worker.ts'),
    'folder-worker': join(root, 'src/formats/folder-worker.ts'),
  },
  ...{ outdir: bundles, bundle: true, splitting: true, packages: 'external', logLevel: 'warning' },
  ...{ platform: 'node', format: 'esm', target: 'node20' },
});
copyFileSync(join(here, 'peft_peer.py'), join(bundles, 'peft_peer.py'));
const { main } = await import(pathToFileURL(join(bundles, 'main.js')).href);
process.exitCode = await main(args);
