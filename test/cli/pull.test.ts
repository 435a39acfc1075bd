import { randomBytes } from 'node:crypto';
import {
  existsSync,
  lstatSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  readlinkSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { COMMIT, HubStandIn } from './hub-stand-in.js';
import { runCli, type CliOptions, type CliRun } from './run-cli.js';

const REPO = 'acme/tiny-llama';
const WEIGHTS = randomBytes(300_000);

let hub: HubStandIn;
let cache: string;

beforeEach(async () => {
  hub = new HubStandIn(REPO);
  hub.add('config.json', '{"model_type":"llama"}');
  hub.add('tokenizer.json', '{"model":{}}');
  hub.add('model.safetensors', WEIGHTS, true);
  hub.add('pytorch_model.bin', randomBytes(10), true);
  hub.add('README.md', '# tiny');
  await hub.open();
  cache = mkdtempSync(join(tmpdir(), 'openlora-pull-'));
});

afterEach(async () => {
  vi.unstubAllEnvs();
  await hub.close();
  rmSync(cache, { recursive: true });
});

async function pull(args: string[] = [], options: CliOptions = {}): Promise<CliRun> {
  const env = { HF_ENDPOINT: hub.url, HF_TOKEN_PATH: join(cache, 'no-token'), ...options.env };
  return await runCli(['pull', REPO, '--cache-dir', cache, ...args], { ...options, env });
}

const storage = () => join(cache, 'models--acme--tiny-llama');
const snapshot = () => join(storage(), 'snapshots', COMMIT);
const blob = (path: string) => join(storage(), 'blobs', hub.etagOf(path));

describe('openlora pull', () => {
  it('puts only the needed files into the usual cache layout and prints the folder alone on stdout', async () => {
    const { code, stdout, stderr } = await pull();
    expect(stderr).toContain('✓ base acme/tiny-llama at aaaaaaa: 3 files');
    expect({ code, stdout }).toEqual({ code: 0, stdout: `${snapshot()}\n` });
    expect(readdirSync(snapshot()).sort()).toEqual(['config.json', 'model.safetensors', 'tokenizer.json']);
    expect(readFileSync(join(snapshot(), 'model.safetensors')).equals(WEIGHTS)).toBe(true);
    expect(lstatSync(join(snapshot(), 'model.safetensors')).isSymbolicLink()).toBe(true);
    expect(readlinkSync(join(snapshot(), 'model.safetensors'))).toBe(
      join('..', '..', 'blobs', hub.etagOf('model.safetensors')),
    );
    expect(readFileSync(join(storage(), 'refs', 'main'), 'utf8')).toBe(COMMIT);
    expect(stderr).not.toContain('\r');
  });

  it('fetches nothing twice', async () => {
    await pull();
    const before = hub.requests.length;
    const { code, stdout } = await pull(['--json']);
    const pulled = JSON.parse(stdout);
    expect({ code, fetched: pulled.fetchedBytes, path: pulled.path }).toEqual({
      code: 0,
      fetched: 0,
      path: snapshot(),
    });
    expect(hub.requests.slice(before).filter(({ path }) => path.includes('/resolve/'))).toEqual([]);
  });

  it('takes up a broken connection where it broke', async () => {
    hub.breaks.set('model.safetensors', { afterBytes: 100_000, times: 1 });
    const { code } = await pull();
    expect(code).toBe(0);
    expect(hub.downloadsOf('model.safetensors')).toEqual([undefined, 'bytes=100000-299999']);
    expect(readFileSync(join(snapshot(), 'model.safetensors')).equals(WEIGHTS)).toBe(true);
  });

  it('resumes what an interrupted run left', async () => {
    const controller = new AbortController();
    hub.breaks.set('model.safetensors', { afterBytes: 100_000, times: 1 });
    hub.onSend = () =>
      hub.files.get('config.json') &&
      hub.downloadsOf('model.safetensors').length > 0 &&
      setTimeout(() => controller.abort(), 60);
    const interrupted = await pull([], { signal: controller.signal });
    expect({ code: interrupted.code, stdout: interrupted.stdout }).toEqual({ code: 130, stdout: '' });
    expect(statSync(`${blob('model.safetensors')}.incomplete`).size).toBe(100_000);
    hub.onSend = undefined;
    const { code, stdout } = await pull(['--json']);
    const file = JSON.parse(stdout).files.find(({ path }: { path: string }) => path === 'model.safetensors');
    expect({ code, resumed: file.resumedBytes }).toEqual({ code: 0, resumed: 100_000 });
    expect(hub.downloadsOf('model.safetensors').at(-1)).toBe('bytes=100000-299999');
    expect(readFileSync(join(snapshot(), 'model.safetensors')).equals(WEIGHTS)).toBe(true);
    expect(existsSync(`${blob('model.safetensors')}.incomplete`)).toBe(false);
  });

  it('throws away a resumed file that is not what the hub has', async () => {
    await pull();
    rmSync(snapshot(), { recursive: true });
    const content = Buffer.from(WEIGHTS.subarray(0, 50_000));
    content[7]! ^= 1;
    writeFileSync(`${blob('model.safetensors')}.incomplete`, content);
    rmSync(blob('model.safetensors'));
    const { code, stderr } = await pull();
    expect({ code, stderr }).toEqual({ code: 1, stderr: expect.stringContaining('[ERR_HUB_DIGEST]') });
    expect(existsSync(blob('model.safetensors'))).toBe(false);
    expect((await pull()).code).toBe(0);
  });

  it('starts again where a proxy ignores ranges', async () => {
    await pull();
    rmSync(snapshot(), { recursive: true });
    writeFileSync(`${blob('model.safetensors')}.incomplete`, WEIGHTS.subarray(0, 50_000));
    rmSync(blob('model.safetensors'));
    hub.ignoresRanges = true;
    expect((await pull()).code).toBe(0);
    expect(readFileSync(blob('model.safetensors')).equals(WEIGHTS)).toBe(true);
  });

  it('fetches a blob of the wrong size again', async () => {
    await pull();
    truncateSync(blob('model.safetensors'), 10);
    expect((await pull()).code).toBe(0);
    expect(readFileSync(blob('model.safetensors')).equals(WEIGHTS)).toBe(true);
  });

  it('takes of an adapter repository what adapters are read from', async () => {
    hub.add('adapter_config.json', '{"peft_type":"LORA"}');
    hub.add('adapter_model.safetensors', randomBytes(100), true);
    const { code, stdout } = await pull(['--json']);
    const { kind, files } = JSON.parse(stdout);
    expect({ code, kind }).toEqual({ code: 0, kind: 'adapter' });
    expect(files.map(({ path }: { path: string }) => path).sort()).toEqual([
      'adapter_config.json',
      'adapter_model.safetensors',
      'tokenizer.json',
    ]);
  });

  it('takes the index of an adapter in several files, whose name is that of a base', async () => {
    hub.add('adapter_config.json', '{"peft_type":"LORA"}');
    hub.add('adapter_model-00001-of-00001.safetensors', randomBytes(100), true);
    hub.add('model.safetensors.index.json', '{"weight_map":{}}');
    const { files } = JSON.parse((await pull(['--json'])).stdout);
    expect(files.map(({ path }: { path: string }) => path).sort()).toEqual([
      'adapter_config.json',
      'adapter_model-00001-of-00001.safetensors',
      'model.safetensors.index.json',
      'tokenizer.json',
    ]);
  });

  it.each(['secret', 'hf_secret\nmore', 'hf_secret é'])('prints nothing of a token that is none', async (token) => {
    const path = join(cache, 'token');
    writeFileSync(path, token);
    for (const env of [{ HF_TOKEN: token }, { HF_TOKEN_PATH: path }]) {
      const { code, stdout, stderr } = await pull([], { env });
      expect(code).not.toBe(0);
      expect(stderr).toContain("the hub's token is none");
      expect(stdout + stderr).not.toContain('secret');
    }
    expect(hub.requests).toEqual([]);
  });

  it('sends the token of HF_TOKEN to the hub', async () => {
    hub.token = 'hf_secret';
    expect((await pull([], { env: { HF_TOKEN: 'hf_secret' } })).code).toBe(0);
  });

  it.each([
    ['without a token', {}, 'it is private or gated'],
    ['with a wrong one', { HF_TOKEN: 'hf_wrong' }, 'the token was refused'],
  ])('explains a 401 %s', async (_, env, message) => {
    hub.token = 'hf_secret';
    const { code, stdout, stderr } = await pull([], { env });
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
    expect(stderr).toContain(message);
    expect(stderr).toContain('HF_TOKEN');
    expect(stderr).not.toContain('hf_wrong');
  });

  it('explains a 404, of a repository and of a revision', async () => {
    const { code, stdout } = await pull(['--revision', 'v9', '--json']);
    expect(code).toBe(1);
    expect(JSON.parse(stdout).error).toMatchObject({
      code: 'ERR_HUB_NOT_FOUND',
      message: expect.stringContaining("no revision 'v9'"),
    });
  });

  it('gives up after several failures in a row and says how to go on', async () => {
    hub.downloadStatus = 503;
    const { code, stderr } = await pull();
    expect({ code, stderr }).toEqual({ code: 1, stderr: expect.stringContaining('it goes on where it stopped') });
    expect(existsSync(join(storage(), 'refs'))).toBe(false);
  });

  it('says that a hub cannot be reached', async () => {
    const { code, stderr } = await pull([], { env: { HF_ENDPOINT: 'http://127.0.0.1:9' } });
    expect({ code, stderr }).toEqual({
      code: 1,
      stderr: expect.stringContaining("http://127.0.0.1:9 can't be reached"),
    });
  });

  it('refuses a repository without safetensors, naming what it has', async () => {
    hub.files.delete('model.safetensors');
    const { code, stderr } = await pull();
    expect({ code, stderr }).toEqual({
      code: 1,
      stderr: expect.stringContaining('no model*.safetensors; it has pytorch_model.bin'),
    });
  });

  it.each([['tiny'], ['../../etc'], ['a/b/c'], ['.a/b']])('refuses the name %s', async (name) => {
    const { code, stderr } = await runCli(['pull', name]);
    expect({ code, stderr }).toEqual({ code: 2, stderr: expect.stringContaining('wanted ORG/NAME') });
  });

  it('refuses a revision that leaves the cache', async () => {
    expect((await pull(['--revision', '../../x'])).code).toBe(2);
  });

  it('uses HF_HOME where no folder is named', async () => {
    vi.stubEnv('HF_HOME', cache);
    vi.stubEnv('HF_HUB_CACHE', undefined);
    const { code, stdout } = await runCli(['pull', REPO], { env: { HF_ENDPOINT: hub.url, HF_HOME: cache } });
    expect({ code, stdout }).toEqual({
      code: 0,
      stdout: `${join(cache, 'hub', 'models--acme--tiny-llama', 'snapshots', COMMIT)}\n`,
    });
  });

  it('draws its bar on a terminal, and erases it', async () => {
    const { stderr } = await pull([], { columns: 80 });
    expect(stderr).toContain('━');
    expect(stderr).toContain('model.safetensors');
    expect(stderr.lastIndexOf('\r\u001b[K')).toBeGreaterThan(stderr.lastIndexOf('━'));
  });
});
