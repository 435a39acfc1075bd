// Formats (--write) or checks (--check) C++ and CUDA with clang-format, the rest with prettier. Both come from npm, pinned
// by package-lock.json: the formatters of Debian and Ubuntu releases disagree with each other.

import { spawnSync } from 'node:child_process';
import { createRequire } from 'node:module';
import { filesUnder, root } from './files.mjs';

const require = createRequire(import.meta.url);
const isWrite = process.argv.includes('--write');

const sources = ['cpp', 'cuda', 'test', 'bench'].flatMap((folder) => filesUnder(folder, /\.(cc|h|cu|cuh)$/));
const { clangFormatPath } = require('clang-format-node');
const results = [
  spawnSync(
    process.execPath,
    [require.resolve('prettier/bin/prettier.cjs'), isWrite ? '--write' : '--check', '--log-level', 'warn', '.'],
    { cwd: root, stdio: 'inherit' },
  ),
];
if (sources.length > 0) {
  const mode = isWrite ? ['-i'] : ['--dry-run', '-Werror', '--ferror-limit=3'];
  results.push(spawnSync(clangFormatPath, [...mode, ...sources], { cwd: root, stdio: 'inherit' }));
}
process.exit(results.every(({ status }) => status === 0) ? 0 : 1);
