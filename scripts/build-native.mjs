// build/release/openlora.node: the development build that src/native/load.ts finds first.

import { spawnSync } from 'node:child_process';
import { cmakeCommands } from './cmake.mjs';
import { root } from './files.mjs';

for (const [command, ...args] of cmakeCommands(root, 'build/release', { OPENLORA_WERROR: 'ON' }, 'openlora_addon')) {
  const { status } = spawnSync(command, args, { cwd: root, stdio: 'inherit' });
  if (status !== 0) process.exit(1);
}
