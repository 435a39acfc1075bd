import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

interface Manifest {
  name?: string;
  version: string;
}

let known: { root: string; version: string } | undefined;

/** Folder of the package.json that names this package: the same from src/, from dist/ and from an installed copy. */
export function packageRoot(): string {
  return (known ??= find()).root;
}

function find(): { root: string; version: string } {
  let root = dirname(fileURLToPath(import.meta.url));
  for (;;) {
    const manifest = join(root, 'package.json');
    if (existsSync(manifest)) {
      const { name, version } = read(manifest);
      if (name === 'openlora') return { root, version };
    }
    const parent = dirname(root);
    if (parent === root) throw new Error('the package.json of openlora was not found above its code');
    root = parent;
  }
}

function read(manifest: string): Manifest {
  return JSON.parse(readFileSync(manifest, 'utf8')) as Manifest;
}

export function packageVersion(root = packageRoot()): string {
  return root === known?.root ? known.version : read(join(root, 'package.json')).version;
}
