import { randomBytes } from 'node:crypto';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { hubResolver, type HubResolverOptions } from '../../src/index.js';
import { COMMIT, HubStandIn } from '../cli/hub-stand-in.js';
import { codeOf, openFake } from './fake-parts.js';

const REPO = 'acme/poet-lora';
const WEIGHTS = randomBytes(200_000);
const FILE = 'adapter_model.safetensors';

let hub: HubStandIn;
let cache: string;
beforeEach(async () => {
  hub = new HubStandIn(REPO);
  hub.add('adapter_config.json', '{"peft_type":"LORA"}');
  hub.add(FILE, WEIGHTS, true);
  hub.add('README.md', 'x');
  hub.add('optimizer.pt', randomBytes(10), true);
  await hub.open();
  cache = mkdtempSync(join(tmpdir(), 'openlora-hub-'));
});
afterEach(async () => {
  await hub.close();
  rmSync(cache, { recursive: true });
});

const optionsOf = (more: HubResolverOptions = {}): HubResolverOptions => ({
  endpoint: more.endpoint ?? hub.url,
  cacheDir: cache,
  attempts: 2,
  ...more,
});
const resolve = (id = REPO, more: HubResolverOptions = {}, tenant?: string, signal = new AbortController().signal) =>
  hubResolver(optionsOf(more))(id, { signal, ...(tenant === undefined ? {} : { tenant }) }) as Promise<string | null>;
const snapshot = () => join(cache, 'models--acme--poet-lora', 'snapshots', COMMIT);
const blobs = () => readdirSync(join(cache, 'models--acme--poet-lora', 'blobs'));

describe('hubResolver', () => {
  test('gives a folder with what adapters are read from, and fetches nothing twice', async () => {
    expect(await resolve()).toBe(snapshot());
    expect(readdirSync(snapshot()).sort()).toEqual(['adapter_config.json', FILE]);
    expect(readFileSync(join(snapshot(), FILE)).equals(WEIGHTS)).toBe(true);
    expect(hub.downloadsOf(FILE)).toHaveLength(1);
    expect(await resolve()).toBe(snapshot());
    expect(hub.downloadsOf(FILE)).toHaveLength(1);
    // openlora pull and huggingface_hub know the place.
    expect(blobs().sort()).toEqual([hub.etagOf('adapter_config.json'), hub.etagOf(FILE)].sort());
  });

  test.each(['poet', 'a/b/c', '../x', 'acme/..', '.acme/x', 'acme/poet lora', '/acme/x', 'https://hf.co/acme/x'])(
    'has no %s, and does not ask for it',
    async (id) => {
      expect(await resolve(id)).toBeNull();
      expect(hub.requests).toEqual([]);
    },
  );

  test('is null for a repository or a revision that is not there', async () => {
    expect(await resolve('acme/nobody')).toBeNull();
    expect(await resolve(REPO, { revision: 'v9' })).toBeNull();
    expect(await resolve(REPO, { revision: COMMIT })).toBe(snapshot());
  });

  test('asks for what `allow` has', async () => {
    for (const allow of [['acme/poet-lora'], ['acme/*'], (id: string) => id.startsWith('acme/')]) {
      expect(await resolve(REPO, { allow })).toBe(snapshot());
    }
    const before = hub.requests.length;
    for (const allow of [[], ['acme/other'], ['acm/*'], ['evil/*', 'acme/poet'], () => false, (() => 1) as never]) {
      expect(await resolve(REPO, { allow })).toBeNull();
    }
    expect(await resolve(REPO, { allow: (_, tenant) => tenant === 't' }, 'u')).toBeNull();
    expect(hub.requests).toHaveLength(before);
  });

  test("sends each tenant's own token, and asks for what is in the cache, too", async () => {
    hub.token = 'hf_a';
    const token = async (tenant: string | undefined) => (tenant === undefined ? null : `hf_${tenant}`);
    expect(await resolve(REPO, { token }, 'a')).toBe(snapshot());
    const error = (await resolve(REPO, { token }, 'b').catch((cause: unknown) => cause)) as Error;
    expect(error).toMatchObject({ code: 'ERR_HUB_AUTH', retryable: false, details: { status: 401, hasToken: true } });
    expect(error.message).not.toContain('hf_b');
    // Whoever has none can't tell what is private from what isn't there.
    expect(await resolve(REPO, { token })).toBeNull();
    expect(new Set(hub.requests.map(({ authorization }) => authorization))).toEqual(
      new Set(['Bearer hf_a', 'Bearer hf_b', undefined]),
    );
  });

  test('is refused the files of a gated repository, though they are in the cache and its list is public', async () => {
    expect(await resolve()).toBe(snapshot());
    hub.downloadStatus = 403;
    await expect(resolve()).rejects.toMatchObject({ code: 'ERR_HUB_AUTH', details: { status: 403 } });
  });

  test.each([
    [429, 'ERR_HUB_RATE'],
    [503, 'ERR_HUB'],
  ])('asks again after %i, and says so when it stays', async (status, code) => {
    hub.downloadStatus = status;
    setTimeout(() => (hub.downloadStatus = undefined), 50);
    expect(await resolve()).toBe(snapshot());
    hub.downloadStatus = status;
    await expect(resolve()).rejects.toMatchObject({ code, retryable: true });
    const endpoint = hub.url;
    await hub.close();
    expect(await codeOf(resolve(REPO, { endpoint }))).toBe('ERR_HUB_UNREACHABLE');
    await hub.open();
  });

  test('goes on where a download broke, and uses nothing that is not what the hub promised', async () => {
    hub.breaks.set(FILE, { afterBytes: 50_000, times: 1 });
    expect(await resolve()).toBe(snapshot());
    expect(hub.downloadsOf(FILE)).toEqual([undefined, 'bytes=50000-199999']);
    rmSync(cache, { recursive: true });
    const etagOf = hub.etagOf.bind(hub);
    hub.etagOf = (path) => (path === FILE ? 'f'.repeat(64) : etagOf(path));
    await expect(resolve()).rejects.toMatchObject({ code: 'ERR_HUB_DIGEST', retryable: true });
    expect(existsSync(join(snapshot(), FILE))).toBe(false);
    expect(blobs()).toEqual([etagOf('adapter_config.json')]);
  });

  test('makes as many attempts at a download as it is told', async () => {
    hub.breaks.set(FILE, { afterBytes: 50_000, times: 1 });
    await expect(resolve(REPO, { attempts: 1 })).rejects.toThrow(/ended|terminated|aborted/);
    expect(hub.downloadsOf(FILE)).toHaveLength(1);
    expect(await resolve(REPO, { attempts: 1 })).toBe(snapshot());
  });

  test('refuses what is no adapter, and what is too large, before it fetches it', async () => {
    expect(await codeOf(resolve(REPO, { maxBytes: WEIGHTS.length }))).toBe('ERR_ADAPTER_SIZE');
    hub.files.delete(FILE);
    expect(await codeOf(resolve())).toBe('ERR_HUB_REPO');
    hub.add('adapter_model.bin', 'pickle', true);
    expect(await codeOf(resolve())).toBe('ERR_HUB_REPO');
    hub.add(FILE, WEIGHTS, true);
    hub.files.delete('adapter_config.json');
    hub.add('config.json', '{}');
    expect(await codeOf(resolve())).toBe('ERR_HUB_REPO');
    expect(existsSync(join(cache, 'models--acme--poet-lora'))).toBe(false);
  });

  test('of two tenants at once fetches one file once', async () => {
    const resolver = hubResolver(optionsOf({ token: (tenant) => `hf_${tenant!}` }));
    const signal = new AbortController().signal;
    const left = new AbortController();
    const all = ['a', 'b', 'c'].map((tenant) => resolver(REPO, { signal, tenant }));
    const leaving = resolver(REPO, { signal: left.signal, tenant: 'd' });
    hub.onSend = () => left.abort(new Error('mine'));
    await expect(leaving).rejects.toThrow();
    expect(await Promise.all(all)).toEqual([snapshot(), snapshot(), snapshot()]);
    expect(hub.downloadsOf(FILE)).toHaveLength(1);
    expect(readFileSync(join(snapshot(), FILE)).equals(WEIGHTS)).toBe(true);
  });

  test('ends by its signal in the midst of a download, which the next one goes on with', async () => {
    const controller = new AbortController();
    hub.breaks.set(FILE, { afterBytes: 50_000, times: 1 });
    hub.onSend = () => hub.downloadsOf(FILE).length > 0 && setTimeout(() => controller.abort(new Error('mine')), 60);
    await expect(resolve(REPO, {}, undefined, controller.signal)).rejects.toThrow('mine');
    hub.onSend = undefined;
    expect(await resolve()).toBe(snapshot());
    expect(hub.downloadsOf(FILE).at(-1)).toBe('bytes=50000-199999');
  });

  test.each<[string, unknown, RegExp]>([
    ['an endpoint that is none', { endpoint: 'huggingface.co' }, /^endpoint/],
    ['a token that is none', { token: 'sk-secret' }, /^token: wanted a token of the hub, which begins with 'hf_'$/],
    ['a revision that leaves', { revision: '../x' }, /^revision/],
    ['names that are none', { allow: ['acme'] }, /^allow: got "acme", wanted ORG\/NAME or ORG\/\*$/],
    ['one name', { allow: 'acme/x' }, /^allow: got "acme\/x", wanted an array/],
    ['an unknown option', { tokens: 5 }, /^hubResolver: option "tokens" is unknown; did you mean 'token'/],
  ])('refuses %s at once', (_, options, message) => {
    expect(() => hubResolver(options as HubResolverOptions)).toThrow(message);
  });

  test('serves two tenants of a base', async () => {
    hub.token = 'hf_a';
    const adapterResolver = hubResolver(
      optionsOf({ token: (tenant) => (tenant === undefined ? null : `hf_${tenant}`) }),
    );
    const { base, engine } = await openFake({}, { adapterResolver });
    const ask = (tenant: string, adapter = REPO) =>
      base.generate({ prompt: 'x', maxTokens: 1, adapter, tenant }).result;
    const [mine, theirs] = [ask('a'), codeOf(ask('b'))];
    expect((await mine).adapters[0]!.id).toBe(REPO);
    expect(await theirs).toBe('ERR_HUB_AUTH');
    expect(engine.adapters.get(1)!.spec.files).toEqual([snapshot()]);
    expect(await codeOf(ask('a', 'acme/nobody'))).toBe('ERR_ADAPTER_NOT_FOUND');
    await base.dispose();
  });
});
