// variants/<variant>/prebuilds/<platform>-<arch>/openlora.glibc.node: the binary that the npm package ships, of cuda12 and cuda13
// with the device images beside it. usage: node scripts/prebuild.mjs [cpu|cuda12|cuda13]

import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, readdirSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { root } from './files.mjs';

const variant = process.argv[2] ?? 'cpu';
const require = createRequire(import.meta.url);
const args = ['--napi', '-t', '20.19.0', '--strip', '--tag-libc', '--out', `variants/${variant}`];
args.push(`--node-gyp=${join(root, 'scripts', 'node-gyp-cmake.mjs')}`);
const { status } = spawnSync(process.execPath, [require.resolve('prebuildify/bin.js'), ...args], {
  cwd: root,
  env: { ...process.env, OPENLORA_VARIANT: variant },
  stdio: 'inherit',
});
if (status !== 0) process.exit(status ?? 1);
if (variant !== 'cpu') {
  const built = join(root, 'build', 'release', 'variants', variant, 'cuda_images');
  const shipped = join(root, 'variants', variant, 'prebuilds', `${process.platform}-${process.arch}`, 'cuda_images');
  rmSync(shipped, { recursive: true, force: true });
  mkdirSync(shipped, { recursive: true });
  // Probes and what is measured beside are for scripts/gpu-check.sh, tables for who builds.
  const isShipped = (name) => !/^(probe|plain_bgmv)\.|\.table$/.test(name);
  for (const name of readdirSync(built).filter(isShipped)) copyFileSync(join(built, name), join(shipped, name));
}
