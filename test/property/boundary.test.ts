import { execFile } from 'node:child_process';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { noAddon } from '../sdk/real/addon.js';
import { SEED } from './property.js';
import { bundleForThreads } from '../sdk/real/bundle.js';
import { writeTinyCheckpoint, type TinyCheckpoint } from '../sdk/real/tiny-checkpoint.js';

const runs = process.env.OPENLORA_LONG === undefined ? 400 : 100_000;

describe.skipIf(noAddon)('the boundary of the addon', () => {
  let files: TinyCheckpoint;
  let folder: string;

  beforeAll(async () => {
    files = writeTinyCheckpoint();
    folder = await bundleForThreads(fileURLToPath(new URL('./boundary.ts', import.meta.url)));
  });
  afterAll(() => {
    rmSync(files.root, { recursive: true });
    rmSync(folder, { recursive: true });
  });

  test(`takes arguments of every kind without harm (seed ${SEED})`, async () => {
    const args = [join(folder, 'boundary.js'), files.base, String(SEED), String(runs)];
    // Chance names folders for packed weights, too.
    const options = { timeout: 1_500_000, cwd: files.root };
    const result = await promisify(execFile)(process.execPath, args, options).catch(
      (error: { signal?: string; code?: number; stdout: string; stderr: string }) => error,
    );
    expect(result).toMatchObject({ stdout: 'served\n', stderr: '' });
  }, 1_600_000);
});
