// variants/<variant>/prebuilds/<platform>-<arch>/openlora.glibc.node: the binary that the npm package ships.

import { spawnSync } from 'node:child_process';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { root } from './files.mjs';

const variant = process.argv[2] ?? 'cpu';
const require = createRequire(import.meta.url);
const args = ['--napi', '-t', '20.19.0', '--strip', '--tag-libc', '--out', `variants/${variant}`];
args.push(`--node-gyp=${join(root, 'scripts', 'node-gyp-cmake.mjs')}`);
const { status } = spawnSync(process.execPath, [require.resolve('prebuildify/bin.js'), ...args], {
  cwd: root,
  stdio: 'inherit',
});
process.exit(status ?? 1);
