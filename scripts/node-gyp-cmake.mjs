#!/usr/bin/env node
// prebuildify calls this in node-gyp's place (it knows no CMake): builds with cmake-js in a folder of the variant's own and
// leaves the one file where prebuildify looks for it.

import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { root } from './files.mjs';

const folder = join(root, 'build', `prebuild-${process.env.OPENLORA_VARIANT}`);
const require = createRequire(import.meta.url);
const args = ['build', '--directory', root, '--out', folder, '--parallel', String(availableParallelism())];
args.push('--CDOPENLORA_TESTS=OFF', '--CDOPENLORA_WERROR=ON');
const { status } = spawnSync(process.execPath, [require.resolve('cmake-js/bin/cmake-js'), ...args], {
  stdio: 'inherit',
});
if (status !== 0) process.exit(1);
mkdirSync(join(root, 'build', 'Release'), { recursive: true });
copyFileSync(join(folder, 'Release', 'openlora.node'), join(root, 'build', 'Release', 'openlora.node'));
