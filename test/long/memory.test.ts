// What a loaded base takes of memory is what stats() says, in every format of the weights: there is no second copy, not even
// while it loads.

import { execFile } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { EngineStats } from '../../src/sdk/types.js';
import { noAddon } from '../sdk/real/addon.js';
import { bundleForThreads } from '../sdk/real/bundle.js';
import { writeBase } from './half-billion.js';

const noProc = !existsSync('/proc/self/status');

describe.skipIf(noAddon || noProc)(`memory ${noProc ? '(needs /proc)' : ''}`, () => {
  let root: string;
  let bundle: string;
  beforeAll(async () => {
    root = mkdtempSync(join(tmpdir(), 'openlora-memory-'));
    bundle = await bundleForThreads(fileURLToPath(new URL('./memory/run.ts', import.meta.url)));
    await writeBase(root);
  });
  afterAll(() => {
    for (const folder of [root, bundle]) rmSync(folder, { recursive: true, force: true });
  });

  test.each(['f32', 'bf16', 'int8', 'int4'])(
    'a base of half a billion weights in %s takes what stats() says',
    async (dtype) => {
      const { stdout } = await promisify(execFile)(process.execPath, [join(bundle, 'run.js'), root, dtype]);
      const { growth, peak, bytes } = JSON.parse(stdout) as {
        growth: number;
        peak: number;
        bytes: EngineStats['bytes'];
      };
      // Of the pool what was used: one request's KV, frames that are free again.
      const said = bytes.base + bytes.workspace;
      process.stdout.write(`memory, ${dtype}: growth ${growth}, peak ${peak}, base and workspace ${said}\n`);
      expect(Math.abs(growth - said)).toBeLessThan(0.05 * said);
      expect(peak).toBeLessThan(1.05 * said);
    },
  );
});
