// The state matrix on the real addon, in this thread and in a worker thread; and what ends in stages beyond its cells.

import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { loadBase } from '../../../src/index.js';
import { codeOf } from '../fake-parts.js';
import { REAL_STATES } from '../state-matrix.js';
import { noAddon } from './addon.js';
import { bundleForThreads } from './bundle.js';
import { expectedState, LONG, runState, writeMatrixFiles, type MatrixFiles } from './state-matrix.js';

describe.skipIf(noAddon)('on the real addon', () => {
  let files: MatrixFiles;
  beforeAll(() => {
    files = writeMatrixFiles();
  });
  afterAll(() => rmSync(files.root, { recursive: true }));

  const open = () => loadBase({ path: files.base, limits: { deviceMemory: '8MiB' } });

  test.each(REAL_STATES)(
    'every method in the state %s',
    async (state) => {
      expect(await runState(state, files)).toEqual(expectedState(state));
    },
    60_000,
  );

  test('in a worker thread every cell is the same', async () => {
    const bundle = await bundleForThreads(fileURLToPath(new URL('./state-worker.ts', import.meta.url)));
    const worker = new Worker(join(bundle, 'state-worker.js'), { workerData: files });
    try {
      const cells = await new Promise((resolve, reject) => {
        worker.once('message', resolve);
        worker.once('error', reject);
      });
      expect(cells).toEqual(REAL_STATES.flatMap(expectedState));
    } finally {
      await worker.terminate();
      rmSync(bundle, { recursive: true });
    }
  }, 180_000);

  test('.result alone ends, however long the answer, without anyone iterating', async () => {
    await using base = await open();
    const results = Array.from({ length: 8 }, (_, i) => base.generate({ ...LONG, maxTokens: 600, seed: i }).result);
    for (const { tokens, finishReason } of await Promise.all(results)) {
      expect([tokens.length, finishReason]).toEqual([600, 'length']);
    }
  });

  test('disposing ends readers in every stage: before their first token, between two, behind, paused', async () => {
    const base = await open();
    await base.registerAdapter('a', files.adapters[0]!);
    const behind = base.generate({ ...LONG, maxTokens: 2000 })[Symbol.asyncIterator]();
    await behind.next();
    await sleep(100);
    const between = base.generate({ ...LONG, maxTokens: 2000 });
    const reading = codeOf(async () => {
      for await (const _ of between);
    });
    const fresh = base.generate({ ...LONG, adapter: 'a', maxTokens: 2000 });
    const first = codeOf(fresh[Symbol.asyncIterator]().next());
    await base.dispose();
    expect([await reading, await first, await codeOf(fresh.result)]).toEqual(Array(3).fill('ERR_CLOSED'));
    const rest = codeOf(async () => {
      while (!(await behind.next()).done);
    });
    expect(await rest).toBe('ERR_CLOSED');
    expect(await codeOf(base.generate(LONG)[Symbol.asyncIterator]().next())).toBe('ERR_CLOSED');
  });
});
