// A resolver before the real engine: many ids through a registry and a pool that hold few of them, each answer as of its adapter
// alone.

import { readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { loadBase, type AdapterResolver } from '../../../src/index.js';
import { codeOf } from '../fake-parts.js';
import { noAddon } from './addon.js';
import { writeTinyCheckpoint, type TinyCheckpoint } from './tiny-checkpoint.js';

const ASK = { prompt: 'hello', maxTokens: 12, ignoreEos: true };

describe.skipIf(noAddon)('a resolver before the real engine', () => {
  let files: TinyCheckpoint;
  const alone: string[] = [];
  beforeAll(async () => {
    files = writeTinyCheckpoint();
    await using base = await loadBase({ path: files.base, limits: { deviceMemory: '4MiB' } });
    for (const [i, folder] of files.adapters.entries()) {
      await base.registerAdapter(`a${i}`, folder);
      alone.push(await base.generate({ ...ASK, adapter: `a${i}` }).text());
    }
  });
  afterAll(() => rmSync(files.root, { recursive: true }));

  test('serves 40 ids of two tenants, three at a time', async () => {
    const adapterResolver: AdapterResolver = async (id) => {
      const number = Number(/\d+/.exec(id)![0]) % 5;
      if (number === 4) return id.length % 2 ? null : '/nowhere';
      const folder = files.adapters[number]!;
      if (id.startsWith('folder')) return folder;
      const config = JSON.parse(readFileSync(join(folder, 'adapter_config.json'), 'utf8')) as object;
      return { config, tensors: readFileSync(join(folder, 'adapter_model.safetensors')) };
    };
    await using base = await loadBase({
      path: files.base,
      limits: { deviceMemory: '1MiB', maxContext: 128 },
      adapterResolver,
      resolverLimits: { maxResolved: 3, maxConcurrent: 2 },
    });
    for (let round = 0; round < 2; round++) {
      const asked = Array.from({ length: 40 }, (_, i) => {
        const adapter = `${i % 2 ? 'folder' : 'memory'}${i}`;
        const { result } = base.generate({ ...ASK, adapter, ...(i % 3 ? { tenant: `t${i % 3}` } : {}) });
        return { i, adapter, result };
      });
      for (const { i, adapter, result } of asked) {
        if (i % 5 < 4) expect((await result).text).toBe(alone[i % 5]);
        else expect(await codeOf(result)).toBe(adapter.length % 2 ? 'ERR_ADAPTER_NOT_FOUND' : 'ERR_ADAPTER_FILES');
      }
    }
    expect(base.adapters.stats().registered).toBe(3);
    expect(base.stats().queue).toEqual({ waiting: 0, running: 0 });
  });
});
