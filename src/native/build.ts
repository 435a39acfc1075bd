// `openlora build`: openlora.node from the sources in the package, with the CMake and the compiler that are there.

import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism } from 'node:os';
import { join, resolve } from 'node:path';
import { packageRoot } from './package-root.js';

const HEADER_PACKAGES = ['node-addon-api', 'node-api-headers'];

export interface BuildOptions {
  /** Folder of the package; the result goes to `build/release` there. */
  root?: string;
  jobs?: number;
}

/** Builds and returns the path of openlora.node. Output of the tools goes to stderr. Throws with what is missing. */
export function buildFromSource(options: BuildOptions = {}): string {
  const root = options.root ?? packageRoot();
  const jobs = options.jobs ?? availableParallelism();
  for (const tool of ['cmake', 'c++']) {
    if (spawnSync(tool, ['--version'], { stdio: 'ignore' }).status !== 0) {
      throw new Error(`${tool} not found: building from source needs CMake 3.22, a C++20 compiler and make or ninja`);
    }
  }
  const folder = join(root, 'build', 'release');
  const headers = headerFolders(root);
  const definitions = {
    CMAKE_BUILD_TYPE: 'Release',
    OPENLORA_TESTS: 'OFF',
    OPENLORA_NODE_ADDON_API: headers.addonApi,
    OPENLORA_NODE_API_HEADERS: headers.nodeApi,
  };
  const defines = Object.entries(definitions).map(([name, value]) => `-D${name}=${value}`);
  run('cmake', ['-S', root, '-B', folder, ...defines]);
  run('cmake', ['--build', folder, '--target', 'openlora_addon', '--parallel', String(jobs)]);
  return join(folder, 'openlora.node');
}

function headerFolders(root: string): { addonApi: string; nodeApi: string } {
  const own = join(root, 'build', 'headers');
  const found = includeFolders(root) ?? includeFolders(own);
  if (found) return found;
  // In an installed package the headers are missing: npm fetches the versions that the release is built with.
  const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
    devDependencies: Record<string, string>;
  };
  const dependencies = Object.fromEntries(HEADER_PACKAGES.map((name) => [name, manifest.devDependencies[name]]));
  mkdirSync(own, { recursive: true });
  writeFileSync(join(own, 'package.json'), JSON.stringify({ private: true, dependencies }));
  run('npm', ['install', '--prefix', own, '--ignore-scripts', '--no-audit', '--no-fund']);
  const fetched = includeFolders(own);
  if (!fetched) throw new Error(`npm did not put node-addon-api and node-api-headers under ${own}`);
  return fetched;
}

function includeFolders(root: string): { addonApi: string; nodeApi: string } | undefined {
  const require = createRequire(join(root, 'package.json'));
  try {
    const includeDir = (name: string) => resolve((require(name) as { include_dir: string }).include_dir);
    const folders = { addonApi: includeDir('node-addon-api'), nodeApi: includeDir('node-api-headers') };
    return existsSync(join(folders.addonApi, 'napi.h')) ? folders : undefined;
  } catch {
    return undefined;
  }
}

function run(command: string, args: string[]): void {
  // The tools write to stderr: stdout belongs to `--json`.
  const { status, error } = spawnSync(command, args, { stdio: ['ignore', 2, 2] });
  if (error) throw error;
  if (status !== 0) throw new Error(`${command} ${args[0]} failed`);
}
