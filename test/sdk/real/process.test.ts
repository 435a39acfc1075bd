// What processes and worker threads do that load the real addon: when they end, and that nothing crashes.

import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
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

  describe('with adapters in memory', () => {
    let tmp: string;
    const start = (scenario: string) =>
      spawn(process.execPath, [join(bundle, 'scenario.js'), scenario, files.base, files.adapters[2]!], {
        env: { ...process.env, TMPDIR: tmp },
        stdio: ['ignore', 'pipe', 'inherit'],
      });
    const run = async (scenario: string) => {
      const child = start(scenario);
      let said = '';
      child.stdout.setEncoding('utf8').on('data', (text: string) => (said += text));
      const [code] = (await once(child, 'close')) as [number];
      return [code, said];
    };
    beforeEach(() => {
      tmp = mkdtempSync(join(files.root, 'tmp-'));
    });

    test('leaves nothing of them when it exits', async () => {
      expect(await run('spooling')).toEqual([0, '1\n']);
      expect(readdirSync(tmp)).toEqual([]);
    }, 60_000);

    test('leaves them to itself when it is killed, and the next one removes them', async () => {
      const child = start('killed while spooling');
      await once(child.stdout, 'data');
      child.kill('SIGKILL');
      await once(child, 'close');
      const [packs, spool, ...others] = readdirSync(tmp).sort();
      expect([packs, spool, others]).toEqual([
        expect.stringMatching(/^openlora-packs-/),
        expect.stringMatching(/^openlora-spool-/),
        [],
      ]);
      expect(readdirSync(join(tmp, packs!))).toEqual(['owner']);
      expect(readdirSync(join(tmp, spool!)).sort()).toEqual(['1.safetensors', 'owner']);
      for (const left of [packs, spool]) expect(statSync(join(tmp, left!)).mode & 0o777).toBe(0o700);
      expect(await run('spooling')).toEqual([0, '1\n']);
      expect(readdirSync(tmp)).toEqual([]);
    }, 60_000);

    test('removes what its terminated threads left', async () => {
      expect(await run('spooling in threads')).toEqual([0, `${'2 5\n'.repeat(3)}length\n0\n`]);
      expect(readdirSync(tmp)).toEqual([]);
    }, 60_000);
  });
});
