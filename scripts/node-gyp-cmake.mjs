#!/usr/bin/env node
// prebuildify calls this in node-gyp's place (it knows no CMake): builds the addon with cmake-js in the folder of
// its tests, so that the file that ships is the one that was tested, and leaves it where prebuildify looks for it.

import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { root } from './files.mjs';

const folder = join(root, 'build', 'release');
const require = createRequire(import.meta.url);
const args = ['build', '--directory', root, '--out', folder, '--parallel', String(availableParallelism())];
args.push('--target', 'openlora_addon', '--CDOPENLORA_WERROR=ON');
const { status } = spawnSync(process.execPath, [require.resolve('cmake-js/bin/cmake-js'), ...args], {
  stdio: 'inherit',
});
if (status !== 0) process.exit(1);
mkdirSync(join(root, 'build', 'Release'), { recursive: true });
copyFileSync(join(folder, 'openlora.node'), join(root, 'build', 'Release', 'openlora.node'));
