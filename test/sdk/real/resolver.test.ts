// Resolvers before the real engine, those of the package too: many ids through a registry and a pool that hold few of them, each
// answer as of its adapter alone.

import { readFileSync, rmSync } from 'node:fs';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  folderResolver,
  hubResolver,
  loadBase,
  s3Resolver,
  type AdapterResolver,
  type Base,
} from '../../../src/index.js';
import { HubStandIn } from '../../cli/hub-stand-in.js';
import { codeOf } from '../fake-parts.js';
import { S3StandIn } from '../s3-stand-in.js';
import { noAddon } from './addon.js';
import { writeAdapter, writeTinyCheckpoint, type TinyCheckpoint } from './tiny-checkpoint.js';

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

const LARGE = 8;
const MODULES = ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj'];
const FILES = ['adapter_config.json', 'adapter_model.safetensors'];

/** A hub with several repositories. */
class Hub extends HubStandIn {
  readonly repositories: Hub[] = [];

  protected override answer(request: IncomingMessage, response: ServerResponse): void {
    const of = this.repositories.find(({ repo }) => request.url!.includes(`/${repo}/`));
    if (of) of.answer(request, response);
    else super.answer(request, response);
  }
}

describe.skipIf(noAddon)('a resolver of the package before the real engine', () => {
  let files: TinyCheckpoint;
  /** 580 KiB each in f32: one of them fits into the pool. Named as on the hub. */
  let large: string[];
  const ids = Array.from({ length: LARGE }, (_, i) => `acme/lora-${i}`);
  let alone: unknown[];
  const limits = { deviceMemory: '1MiB', maxContext: 128 } as const;

  const answerOf = async (base: Base, adapter: string, tenant?: string) => {
    const request = { ...ASK, adapter, logprobs: 0, ...(tenant === undefined ? {} : { tenant }) };
    const { tokens, logprobs, adapters } = await base.generate(request).result;
    return { answer: { tokens, logprobs }, tier: adapters[0]!.tier };
  };

  beforeAll(async () => {
    files = writeTinyCheckpoint();
    large = ids.map((id, i) => writeAdapter(join(files.root, 'root', id), 160, 300 + i, MODULES));
    await using base = await loadBase({ path: files.base, limits });
    alone = [];
    for (const [i, id] of ids.entries()) {
      await base.registerAdapter(id, large[i]!);
      alone.push((await answerOf(base, id)).answer);
    }
    expect(new Set(alone.map((answer) => JSON.stringify(answer))).size).toBe(LARGE);
  });
  afterAll(() => rmSync(files.root, { recursive: true }));

  /** There and back again: what stayed registered comes back into memory, what didn't is asked for once more. */
  async function serves(resolver: AdapterResolver, tenant?: string): Promise<void> {
    const asked: string[] = [];
    await using base = await loadBase({
      path: files.base,
      limits,
      adapterResolver: (id, options) => {
        asked.push(id);
        return resolver(id, options);
      },
      resolverLimits: { maxResolved: 5 },
    });
    const back = [...ids.keys()].reverse();
    for (const i of ids.keys()) expect((await answerOf(base, ids[i]!, tenant)).answer, ids[i]).toEqual(alone[i]);
    expect(asked).toEqual(ids);
    expect(base.adapters.stats()).toMatchObject({ registered: 5, resident: 1, loads: LARGE });
    const tiers: string[] = [];
    for (const i of back) {
      const { answer, tier } = await answerOf(base, ids[i]!, tenant);
      expect(answer, ids[i]).toEqual(alone[i]);
      tiers.push(tier);
    }
    expect(tiers.slice(0, 5)).toEqual(['resident', 'host', 'host', 'host', 'host']);
    expect(asked.slice(LARGE)).toEqual([2, 1, 0].map((i) => ids[i]));
    expect(base.adapters.stats()).toMatchObject({ registered: 5, resident: 1, loads: 2 * LARGE - 1 });
    expect(await codeOf(answerOf(base, 'acme/nobody', tenant))).toBe('ERR_ADAPTER_NOT_FOUND');
  }

  test('folderResolver: answers are those of registered adapters, also of some that were evicted', async () => {
    await serves(folderResolver(join(files.root, 'root')));
    const roots = new Map([['t', join(files.root, 'root', 'acme')]]);
    await using base = await loadBase({
      path: files.base,
      limits,
      adapterResolver: folderResolver((tenant) => roots.get(tenant ?? '') ?? null),
    });
    expect((await answerOf(base, 'lora-3', 't')).answer).toEqual(alone[3]);
    expect(await codeOf(answerOf(base, 'lora-3', 'u'))).toBe('ERR_ADAPTER_NOT_FOUND');
  });

  test('s3Resolver: answers are those of registered adapters, also of some that were evicted', async () => {
    await using store = Object.assign(new S3StandIn(), { [Symbol.asyncDispose]: () => store.close() });
    for (const [i, id] of ids.entries())
      for (const file of FILES) store.add(`/models/lora/${id}/${file}`, readFileSync(join(large[i]!, file)));
    store.keys.set('AKTEST', { secret: 'secret', reads: '/models/lora/' });
    await store.open();
    const credentials = { accessKeyId: 'AKTEST', secretAccessKey: 'secret' };
    const { url: endpoint, region } = store;
    const options = { endpoint, region, bucket: 'models', prefix: 'lora' };
    await serves(s3Resolver({ ...options, credentials: (tenant) => (tenant === 't' ? credentials : null) }), 't');
    // In memory: once for each time that it was asked for.
    for (const [i, id] of ids.entries())
      expect(store.sentOf(`${id}/adapter_model.safetensors`)).toHaveLength(i < 3 ? 2 : 1);
  });

  test('hubResolver: answers are those of registered adapters, also of some that were evicted', async () => {
    const hub = new Hub('acme/none');
    await using _ = { [Symbol.asyncDispose]: () => hub.close() };
    for (const [i, id] of ids.entries()) {
      const repository = new Hub(id);
      for (const file of FILES) repository.add(file, readFileSync(join(large[i]!, file)), file === FILES[1]);
      repository.token = 'hf_t';
      hub.repositories.push(repository);
    }
    await hub.open();
    const token = (tenant: string | undefined) => (tenant === 't' ? 'hf_t' : null);
    await serves(hubResolver({ endpoint: hub.url, cacheDir: join(files.root, 'hub'), token, attempts: 2 }), 't');
    // In the cache: what is there isn't fetched again.
    for (const repository of hub.repositories) expect(repository.downloadsOf(FILES[1]!)).toHaveLength(1);
  });
});
