import { spawnSync } from 'node:child_process';
import { existsSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { installPacked, type Installed, root } from '../package/installed.js';

/** See test/package/consumer. */
interface Answers {
  base: string;
  adapters: string[];
}

let installed: Installed;
beforeAll(() => {
  installed = installPacked();
});
afterAll(() => installed?.remove());

it('an installed package builds its addon from source, and prefers it', () => {
  rmSync(join(installed.folder, 'variants'), { recursive: true });
  const run = (...args: string[]): string => {
    const options = { cwd: installed.project, encoding: 'utf8' } as const;
    const { status, stdout, stderr } = spawnSync(process.execPath, args, options);
    expect(status, stderr).toBe(0);
    return stdout;
  };
  const built = JSON.parse(run('node_modules/.bin/openlora', 'build', '--json')) as { path: string };
  expect(built.path).toBe(join(installed.folder, 'build', 'release', 'openlora.node'));
  expect((JSON.parse(run('esm.mjs')) as Answers).adapters).toContain('ORANGE');
});

// node-gyp wants Node's headers even where nothing of ours is compiled by it.
const prefix = join(process.execPath, '../..');
const hasHeaders = existsSync(join(prefix, 'include/node/common.gypi'));

it.skipIf(!hasHeaders)("node-gyp's delegate builds the same (needs Node's headers beside node)", () => {
  rmSync(join(installed.folder, 'build'), { recursive: true, force: true });
  const nodeGyp = join(root, 'node_modules/node-gyp/bin/node-gyp.js');
  const options = { cwd: installed.folder, encoding: 'utf8' } as const;
  const { status, stderr } = spawnSync(process.execPath, [nodeGyp, 'rebuild', `--nodedir=${prefix}`], options);
  expect(status, stderr).toBe(0);
  expect(existsSync(join(installed.folder, 'build', 'release', 'openlora.node'))).toBe(true);
});
