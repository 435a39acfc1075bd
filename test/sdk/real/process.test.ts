// What processes and worker threads do that load the real addon: when they end, and that nothing crashes.

import { execFile } from 'node:child_process';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { noAddon } from './addon.js';
import { bundleForThreads } from './bundle.js';
import { writeTinyCheckpoint, type TinyCheckpoint } from './tiny-checkpoint.js';

const root = fileURLToPath(new URL('../../../', import.meta.url));

describe.skipIf(noAddon)('a process', () => {
  let files: TinyCheckpoint;
  let bundle: string;

  beforeAll(async () => {
    files = writeTinyCheckpoint();
    bundle = await bundleForThreads(join(root, 'test/sdk/real/scenario.ts'));
  });
  afterAll(() => {
    rmSync(files.root, { recursive: true });
    rmSync(bundle, { recursive: true });
  });

  test.each([
    ['ends by itself when its base is idle', 'idle', '5\n'],
    ['waits for requests, unregistering, draining and disposing', 'waiting', 'length\ndisposed\n'],
    ['ends after a load that failed', 'failing', 'ERR_LIMITS\n'],
    ['can exit in the midst of a step and of a load', 'leaving', 'leaving\n'],
    ['survives errors that nobody reads', 'unread', 'alive\n'],
    ['survives worker threads that are terminated with work in flight', 'terminating', 'terminated\n'],
    ['may use openlora in a worker thread', 'worker', 'worked\n'],
  ])(
    '%s',
    async (_name, scenario, expected) => {
      const args = [join(bundle, 'scenario.js'), scenario, files.base, files.adapters[2]!];
      const { stdout, stderr } = await promisify(execFile)(process.execPath, args, { timeout: 60_000 });
      expect([stdout, stderr]).toEqual([expected, '']);
    },
    90_000,
  );
});
