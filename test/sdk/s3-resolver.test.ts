import { createHash, randomBytes } from 'node:crypto';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { s3Resolver, type AdapterFiles, type S3ResolverOptions } from '../../src/index.js';
import { signedHeaders } from '../../src/sdk/aws-signature.js';
import { codeOf, openFake, turns } from './fake-parts.js';
import { S3StandIn } from './s3-stand-in.js';

const WEIGHTS = randomBytes(300_000);
const CONFIG = { peft_type: 'LORA', r: 8 };
const KEY = { accessKeyId: 'AKTEST', secretAccessKey: 'secret/+=' };

let store: S3StandIn;
beforeEach(async () => {
  store = new S3StandIn();
  store.keys.set(KEY.accessKeyId, { secret: KEY.secretAccessKey, reads: '/models/lora/' });
  addAdapter('/models/lora/alice');
  await store.open();
});
afterEach(async () => {
  await store.close();
});

function addAdapter(folder: string, weights = WEIGHTS): void {
  store.add(`${folder}/adapter_config.json`, JSON.stringify(CONFIG));
  store.add(`${folder}/adapter_model.safetensors`, weights);
}

const optionsOf = (more: Partial<S3ResolverOptions> = {}): S3ResolverOptions => ({
  endpoint: store.url,
  region: store.region,
  bucket: 'models',
  prefix: 'lora',
  credentials: KEY,
  ...more,
});

function resolve(id: string, more: Partial<S3ResolverOptions> = {}, tenant?: string, signal?: AbortSignal) {
  const o = { signal: signal ?? new AbortController().signal, ...(tenant === undefined ? {} : { tenant }) };
  return s3Resolver(optionsOf(more))(id, o) as Promise<AdapterFiles | null>;
}

async function contentOf(files: AdapterFiles | null): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of files!.tensors as AsyncIterable<Uint8Array>) chunks.push(chunk);
  return Buffer.concat(chunks);
}

const isSame = async (files: AdapterFiles | null) => (await contentOf(files)).equals(WEIGHTS);

describe('signatures', () => {
  // docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html: the examples of GET.
  const example = { accessKeyId: 'AKIAIOSFODNN7EXAMPLE', secretAccessKey: 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY' };
  test.each([
    ['/test.txt', { range: 'bytes=0-9' }, 'f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41'],
    ['/?lifecycle=', {}, 'fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543'],
    ['/?max-keys=2&prefix=J', {}, '34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7'],
  ])('of GET %s is what the documentation says', (path, headers, signature) => {
    const url = new URL(`https://examplebucket.s3.amazonaws.com${path}`);
    const sent = signedHeaders(url, headers, example, 'us-east-1', new Date('2013-05-24T00:00:00Z'));
    expect(sent.authorization).toContain(
      'AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,',
    );
    expect(sent.authorization).toMatch(new RegExp(`Signature=${signature}$`));
  });
});

describe('s3Resolver', () => {
  test('gives config, tensors and template of an adapter', async () => {
    const files = await resolve('alice');
    expect(files!.config).toEqual(CONFIG);
    expect(files).not.toHaveProperty('chatTemplate');
    expect(await isSame(files)).toBe(true);
    store.add('/models/lora/alice/tokenizer_config.json', JSON.stringify({ chat_template: 'old' }));
    expect((await resolve('alice'))!.chatTemplate).toBe('old');
    store.add('/models/lora/alice/chat_template.jinja', 'own');
    expect((await resolve('alice'))!.chatTemplate).toBe('own');
  });

  test('reads any name that is a name, and no other', async () => {
    for (const id of ['team/bob', 'a b+c%20é', "it's(1)!*", '...', '日本']) {
      addAdapter(`/models/lora/${id}`);
      expect(await isSame(await resolve(id))).toBe(true);
    }
    addAdapter('/models/secret');
    const before = store.requests.length;
    for (const id of ['../secret', 'alice/../../secret', '/alice', 'alice/', 'a//b', '.', '..\\secret', 'a\nb']) {
      expect(await resolve(id)).toBeNull();
    }
    expect(store.requests).toHaveLength(before);
  });

  test("is null for what isn't there, and says what is missing of an adapter", async () => {
    expect(await resolve('nobody')).toBeNull();
    store.add('/models/lora/half/adapter_config.json', '{}');
    await expect(resolve('half')).rejects.toMatchObject({
      code: 'ERR_ADAPTER_FILES',
      message: expect.stringContaining('s3://models/lora/half/adapter_model.safetensors'),
    });
    for (const text of ['[]', '{', '']) {
      store.add('/models/lora/half/adapter_config.json', text);
      expect(await codeOf(resolve('half'))).toBe('ERR_ADAPTER_CONFIG');
    }
    store.add('/models/lora/alice/tokenizer_config.json', JSON.stringify({ chat_template: [{ name: 'a' }] }));
    expect(await codeOf(resolve('alice'))).toBe('ERR_ADAPTER_TOKENIZER');
  });

  test("uses each tenant's own credentials", async () => {
    store.keys.set('AKA', { secret: 'sa', reads: '/models/a/' });
    store.keys.set('AKB', { secret: 'sb', sessionToken: 'token==', reads: '/models/b/' });
    addAdapter('/models/a/x');
    addAdapter('/models/b/x', randomBytes(10));
    const asked: (string | undefined)[] = [];
    const more: Partial<S3ResolverOptions> = {
      prefix: (tenant) => tenant!.slice(0, 1),
      credentials: async (tenant) => {
        asked.push(tenant);
        if (tenant === 'a') return { accessKeyId: 'AKA', secretAccessKey: 'sa' };
        if (tenant === 'b') return { accessKeyId: 'AKB', secretAccessKey: 'sb', sessionToken: 'token==' };
        // Looks for b's adapters with a's key.
        if (tenant === 'b-as-a') return { accessKeyId: 'AKA', secretAccessKey: 'sa' };
        if (tenant === 'b-wrong') return { accessKeyId: 'AKB', secretAccessKey: 'sa', sessionToken: 'token==' };
        if (tenant === 'b-old') return { accessKeyId: 'AKB', secretAccessKey: 'sb' };
        if (tenant === 'b-gone') return { accessKeyId: 'AKC', secretAccessKey: 'sb' };
        return null;
      },
    };
    expect(await isSame(await resolve('x', more, 'a'))).toBe(true);
    expect((await contentOf(await resolve('x', more, 'b'))).length).toBe(10);
    for (const [tenant, reason] of [
      ['b-as-a', 'AccessDenied'],
      ['b-wrong', 'SignatureDoesNotMatch'],
      ['b-old', 'InvalidToken'],
      ['b-gone', 'InvalidAccessKeyId'],
    ] as const) {
      const error = (await resolve('x', more, tenant).catch((cause: unknown) => cause)) as Error;
      expect(error).toMatchObject({ code: 'ERR_STORE_REFUSED', retryable: false, details: { status: 403, reason } });
      expect(error.message).not.toMatch(/sa|sb|token==/);
    }
    expect(await resolve('x', more, 'nobody')).toBeNull();
    expect(asked).toHaveLength(7);
    expect(await codeOf(resolve('alice', { region: 'us-east-1' }))).toBe('ERR_STORE_REFUSED');
    expect(await codeOf(resolve('alice', { bucket: 'other' }))).toBe('ERR_STORE_REFUSED');
    store.keys.get(KEY.accessKeyId)!.reads = '/';
    await expect(resolve('alice', { bucket: 'other' })).rejects.toMatchObject({ details: { reason: 'NoSuchBucket' } });
  });

  test('takes 403 of an optional file for one that is not there, once the config was read', async () => {
    store.failures.push({ path: 'chat_template.jinja', status: 403 }, { path: 'tokenizer_config.json', status: 403 });
    const files = await resolve('alice');
    expect(files).not.toHaveProperty('chatTemplate');
    expect(await isSame(files)).toBe(true);
    for (const path of ['adapter_config.json', 'adapter_model.safetensors']) {
      store.failures.push({ path, status: 403 });
      expect(await codeOf(resolve('alice'))).toBe('ERR_STORE_REFUSED');
    }
    store.failures.push({ path: 'chat_template.jinja', status: 401 });
    expect(await codeOf(resolve('alice'))).toBe('ERR_STORE_REFUSED');
  });

  test.each([429, 500, 503])('asks again after %i, and says so when it stays', async (status) => {
    const path = '/alice/adapter_config.json';
    store.failures.push({ path, status, retryAfter: '0' }, { path, status: 0, afterBytes: 3 });
    expect(await isSame(await resolve('alice'))).toBe(true);
    for (let i = 0; i < 2; i++) store.failures.push({ path, status, retryAfter: '0' });
    await expect(resolve('alice', { attempts: 2 })).rejects.toMatchObject({
      code: 'ERR_STORE',
      retryable: true,
      details: { status },
    });
    expect(store.failures).toEqual([]);
  });

  test('goes on with a download where it broke', async () => {
    const path = '/alice/adapter_model.safetensors';
    store.failures.push({ path, status: 0, afterBytes: 100_000 }, { path, status: 0, afterBytes: 50_000 });
    const files = await resolve('alice');
    store.failures.splice(1, 0, { path, status: 503, retryAfter: '0' });
    expect(await isSame(files)).toBe(true);
    const ranges = store.sentOf('.safetensors').map((range) => Number(/\d+/.exec(range ?? '0')![0]));
    expect(ranges).toHaveLength(3);
    expect(ranges[0]).toBe(0);
    expect(ranges[1]).toBeGreaterThan(0);
    expect(ranges[2]).toBeGreaterThan(ranges[1]!);
  });

  test('never takes another content for the rest of the first', async () => {
    const path = '/models/lora/alice/adapter_model.safetensors';
    const breakOff = () => store.failures.push({ path, status: 0, afterBytes: 100_000 });
    breakOff();
    let files = await resolve('alice');
    store.add(path, randomBytes(WEIGHTS.length));
    expect(await codeOf(contentOf(files))).toBe('ERR_STORE_DIGEST');
    store.add(path, WEIGHTS);
    breakOff();
    files = await resolve('alice');
    store.ignoresRanges = true;
    expect(await codeOf(contentOf(files))).toBe('ERR_STORE_DIGEST');
    store.ignoresRanges = false;
    breakOff();
    files = await resolve('alice');
    store.objects.delete(path);
    expect(await codeOf(contentOf(files))).toBe('ERR_STORE_DIGEST');
  });

  test('compares what arrived with what the store promises', async () => {
    const path = '/models/lora/alice/adapter_model.safetensors';
    const read = async (headers: Record<string, string>) => {
      store.headers.set(path, headers);
      return codeOf(resolve('alice').then(contentOf));
    };
    const sha256 = createHash('sha256').update(WEIGHTS).digest('base64');
    const wrong = createHash('sha256').update('x').digest('base64');
    expect(await read({ 'x-amz-checksum-sha256': sha256, etag: '"x"' })).toBe('no error');
    expect(await read({ 'x-amz-checksum-sha256': wrong })).toBe('ERR_STORE_DIGEST');
    expect(await read({ etag: `"${'0'.repeat(32)}"` })).toBe('ERR_STORE_DIGEST');
    // No digests of the content: of several parts, of a digest of parts, and of what is encrypted.
    expect(await read({ etag: `"${'0'.repeat(32)}-2"` })).toBe('no error');
    expect(await read({ 'x-amz-checksum-sha256': `${wrong}-2`, etag: '"x"' })).toBe('no error');
    expect(await read({ etag: `"${'0'.repeat(32)}"`, 'x-amz-server-side-encryption': 'aws:kms' })).toBe('no error');
  });

  test('takes no more bytes than it may', async () => {
    expect(await codeOf(resolve('alice', { maxBytes: WEIGHTS.length - 1 }))).toBe('ERR_ADAPTER_SIZE');
    expect(await isSame(await resolve('alice', { maxBytes: WEIGHTS.length }))).toBe(true);
    store.add('/models/lora/alice/adapter_config.json', ' '.repeat(2 ** 20 + 1));
    expect(await codeOf(resolve('alice'))).toBe('ERR_ADAPTER_SIZE');
    store.headers.set('/models/lora/alice/adapter_config.json', { 'transfer-encoding': 'chunked' });
    expect(await codeOf(resolve('alice'))).toBe('ERR_ADAPTER_SIZE');
  });

  test('notices silence, and a store that is not there', async () => {
    const path = 'adapter_config.json';
    store.failures.push({ path, status: -1 });
    expect(await isSame(await resolve('alice', { idleMs: 100 }))).toBe(true);
    store.failures.push({ path, status: -1 });
    await expect(resolve('alice', { idleMs: 20, attempts: 1 })).rejects.toMatchObject({
      code: 'ERR_STORE',
      message: expect.stringMatching(/nothing arrived for 20 ms$/),
    });
    const gone = new S3StandIn();
    await gone.open();
    const endpoint = gone.url;
    await gone.close();
    await expect(resolve('alice', { endpoint, attempts: 1 })).rejects.toMatchObject({
      code: 'ERR_STORE',
      message: expect.stringMatching(/can't be read: .*ECONNREFUSED/),
    });
  });

  test('follows nobody elsewhere', async () => {
    store.failures.push({ path: 'adapter_config.json', status: 307 });
    expect(await codeOf(resolve('alice'))).toBe('ERR_STORE_REFUSED');
  });

  test("tells nobody a tenant's secrets that can't be sent", async () => {
    const credentials = async () => ({ ...KEY, sessionToken: 'hush\n' });
    const error = (await resolve('alice', { credentials }).catch((cause: unknown) => cause)) as Error;
    expect(error).toMatchObject({ code: 'ERR_INVALID_OPTION' });
    expect(error.message).not.toContain('hush');
    expect(store.requests).toEqual([]);
  });

  test('ends by its signal, while it waits, pauses or reads, and leaves no connection busy', async () => {
    const abortDuring = async (prepare: (abort: () => void) => void) => {
      const controller = new AbortController();
      const reason = new Error('mine');
      prepare(() => controller.abort(reason));
      const outcome = resolve('alice', {}, undefined, controller.signal).then(contentOf);
      await expect(outcome).rejects.toBe(reason);
    };
    await abortDuring((abort) => abort());
    await abortDuring((abort) => {
      store.failures.push({ path: 'config.json', status: -1 });
      setTimeout(abort, 30);
    });
    await abortDuring((abort) => {
      store.failures.push({ path: 'config.json', status: 503, retryAfter: '100' });
      setTimeout(abort, 30);
    });
    store.failures.push({ path: '.safetensors', status: 0, afterBytes: 100_000 });
    const controller = new AbortController();
    const files = await resolve('alice', {}, undefined, controller.signal);
    const reading = contentOf(files);
    controller.abort(new Error('mine'));
    await expect(reading).rejects.toThrow('mine');
  });

  test.each<[string, Partial<Record<keyof S3ResolverOptions | 'key', unknown>>, RegExp]>([
    ['an endpoint without a protocol', { endpoint: 's3.example' }, /^endpoint: got "s3.example", wanted http/],
    ['an endpoint with a query', { endpoint: 'http://x?y' }, /^endpoint/],
    ['an endpoint with a password', { endpoint: 'http://a:hush@x' }, /^endpoint: wanted http.* without a user/],
    ['no URL, with a password', { endpoint: 'a:hush@x' }, /^endpoint: wanted http.* without a user/],
    ['credentials in a list', { credentials: ['hush'] }, /^credentials: wanted an object$/],
    ['no region', { region: '' }, /^region/],
    ['a bucket that leaves', { bucket: '..' }, /^bucket: got "\.\.", wanted the name of a bucket$/],
    ['a prefix that leaves', { prefix: '../x' }, /^prefix: got "..\/x", wanted a relative name/],
    ['no credentials', { credentials: undefined }, /^credentials: wanted an object$/],
    ['no secret', { credentials: { accessKeyId: 'x', secretAccessKey: 5 } }, /^credentials.secretAccessKey: wanted a/],
    ['credentials in words', { credentials: 'AKID:hush' }, /^credentials: wanted an object$/],
    [
      'a key with a line',
      { credentials: { ...KEY, accessKeyId: 'hush\n' } },
      /^credentials.accessKeyId: wanted [^"]*$/,
    ],
    [
      'a secret with a line',
      { credentials: { ...KEY, secretAccessKey: 'hush\n' } },
      /^credentials.secretAccessKey: wanted/,
    ],
    ['a token with a line', { credentials: { ...KEY, sessionToken: 'hush\n' } }, /^credentials.sessionToken: wanted/],
    ['a size in words', { maxBytes: 'much' }, /^maxBytes/],
    ['no attempts', { attempts: 0 }, /^attempts/],
    ['an unknown option', { key: 5 }, /^s3Resolver: option "key" is unknown/],
  ])('refuses %s at once', (_, more, message) => {
    const make = () => s3Resolver(optionsOf(more as Partial<S3ResolverOptions>));
    expect(make).toThrow(message);
    expect(make).not.toThrow('hush');
  });
});

describe('a base with s3Resolver', () => {
  test('serves two tenants, and tells each what its store says', async () => {
    store.keys.set('AKA', { secret: 'sa', reads: '/models/lora/' });
    const credentials = (tenant: string | undefined) => ({
      accessKeyId: 'AKA',
      secretAccessKey: tenant === 'a' ? 'sa' : 'x',
    });
    const { base, engine } = await openFake({}, { adapterResolver: s3Resolver(optionsOf({ credentials })) });
    const ask = (tenant: string, adapter = 'alice') =>
      base.generate({ prompt: 'x', maxTokens: 1, adapter, tenant }).result;
    const [mine, theirs, missing] = [ask('a'), codeOf(ask('b')), codeOf(ask('a', 'nobody'))];
    expect((await mine).text).toBe('x');
    expect([await theirs, await missing]).toEqual(['ERR_STORE_REFUSED', 'ERR_ADAPTER_NOT_FOUND']);
    store.headers.set('/models/lora/alice/adapter_model.safetensors', { etag: `"${'0'.repeat(32)}"` });
    await base.unregisterAdapter('alice', { tenant: 'a' });
    expect(await codeOf(ask('a'))).toBe('ERR_STORE_DIGEST');
    await turns(3);
    expect(engine.adapters.size).toBe(0);
    await base.dispose();
  });
});
