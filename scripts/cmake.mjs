import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';

const hasNinja = spawnSync('ninja', ['--version'], { stdio: 'ignore' }).status === 0;

/** The commands that configure and build `folder`; a folder keeps the generator that it began with. */
export function cmakeCommands(root, folder, definitions, target) {
  const isNew = !existsSync(join(root, folder, 'CMakeCache.txt'));
  const defines = Object.entries(definitions).map(([name, value]) => `-D${name}=${value}`);
  const generator = isNew && hasNinja ? ['-G', 'Ninja'] : [];
  const build = ['cmake', '--build', folder, '--parallel', String(availableParallelism())];
  return [
    ['cmake', '-S', '.', '-B', folder, ...generator, ...defines],
    target ? [...build, '--target', target] : build,
  ];
}
