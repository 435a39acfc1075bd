import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

let known: string | undefined;

/** Folder of the package.json that names this package: the same from src/, from dist/ and from an installed copy. */
export function packageRoot(): string {
  return (known ??= findRoot());
}

function findRoot(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  for (;;) {
    const manifest = join(folder, 'package.json');
    if (existsSync(manifest)) {
      const { name } = JSON.parse(readFileSync(manifest, 'utf8')) as { name?: string };
      if (name === 'openlora') return folder;
    }
    const parent = dirname(folder);
    if (parent === folder) throw new Error('the package.json of openlora was not found above its code');
    folder = parent;
  }
}

export function packageVersion(root = packageRoot()): string {
  return (JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string }).version;
}
