import { spawnSync } from 'node:child_process';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { installPacked, type Installed } from '../package/installed.js';

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
  expect(JSON.parse(run('esm.mjs'))).toMatchObject({ base: expect.any(String) });
});
