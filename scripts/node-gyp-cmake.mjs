#!/usr/bin/env node
// prebuildify calls this in node-gyp's place (it knows no CMake): builds the addon with cmake-js in the folder of
// its tests, so that the file that ships is the one that was tested, and leaves it where prebuildify looks for it. OPENLORA_VARIANT
// is that of scripts/prebuild.mjs.

import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { toolkits } from './cuda/fetch.mjs';
import { root } from './files.mjs';

const variant = process.env.OPENLORA_VARIANT ?? 'cpu';
const isCpu = variant === 'cpu';
const folder = join(root, 'build', 'release');
const require = createRequire(import.meta.url);
const args = ['build', '--directory', root, '--out', folder, '--parallel', String(availableParallelism())];
args.push('--target', isCpu ? 'openlora_addon' : `openlora_addon_${variant}`, '--CDOPENLORA_WERROR=ON');
if (!isCpu) {
  const folders = toolkits().map((toolkit) => toolkit.folder);
  args.push(`--CDOPENLORA_CUDA_TOOLKIT=${folders.join(';')}`);
}
const { status } = spawnSync(process.execPath, [require.resolve('cmake-js/bin/cmake-js'), ...args], {
  stdio: 'inherit',
});
if (status !== 0) process.exit(1);
const built = isCpu ? folder : join(folder, 'variants', variant);
mkdirSync(join(root, 'build', 'Release'), { recursive: true });
copyFileSync(join(built, 'openlora.node'), join(root, 'build', 'Release', 'openlora.node'));
