// The packed tarball, installed without scripts into an empty project.

import { execFileSync } from 'node:child_process';
import { cpSync, existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = fileURLToPath(new URL('../..', import.meta.url));

export interface Packed {
  tarball: string;
  /** Bytes. */
  size: number;
  unpackedSize: number;
  files: { path: string; size: number }[];
}

export interface Installed {
  packed: Packed;
  /** The empty project, with test/package/consumer copied into it. */
  project: string;
  /** node_modules/openlora in it. */
  folder: string;
  remove(): void;
}

const run = (command: string, args: string[], cwd: string): string =>
  execFileSync(command, args, { cwd, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });

/** Packs what `npm run build:ts`, `npm run prebuild:cpu` and `npm run prebuild:cuda` left, and installs it. */
export function installPacked(): Installed {
  const variants = ['cpu', 'cuda12', 'cuda13'].map((variant) => `variants/${variant}/prebuilds`);
  for (const path of ['dist/index.js', 'dist/index.cjs', ...variants, 'demo/base/config.json']) {
    if (!existsSync(join(root, path)))
      throw new Error(`${path} is missing: npm run build:ts, npm run prebuild:cpu, npm run prebuild:cuda`);
  }
  const project = mkdtempSync(join(tmpdir(), 'openlora-package-'));
  const json = run('npm', ['pack', '--json', '--ignore-scripts', '--pack-destination', project], root);
  // An array up to npm 11, an object by name from npm 12 on.
  const [entry] = Object.values(JSON.parse(json) as Record<string, Omit<Packed, 'tarball'> & { filename: string }>);
  if (!entry) throw new Error('npm pack printed no entry');
  const packed: Packed = { ...entry, tarball: join(project, entry.filename) };

  writeFileSync(join(project, 'package.json'), JSON.stringify({ name: 'consumer', version: '1.0.0', private: true }));
  cpSync(join(root, 'test/package/consumer'), project, { recursive: true });
  const flags = ['--ignore-scripts', '--prefer-offline', '--no-audit', '--no-fund'];
  run('npm', ['install', ...flags, packed.tarball], project);
  const folder = join(project, 'node_modules', 'openlora');
  return { packed, project, folder, remove: () => rmSync(project, { recursive: true, force: true }) };
}
