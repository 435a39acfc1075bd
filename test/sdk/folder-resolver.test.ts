import { mkdirSync, mkdtempSync, realpathSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { folderResolver, type ResolverRoot } from '../../src/index.js';
import { codeOf, openFake } from './fake-parts.js';

let top: string;
let root: string;
beforeAll(() => {
  top = realpathSync(mkdtempSync(join(tmpdir(), 'openlora-folders-')));
  root = join(top, 'root');
  for (const path of [
    'root/alice',
    'root/team/bob',
    'root/a b é',
    'root/..x',
    'secret/x',
    'root-2/carol',
    't/u/alice',
  ]) {
    mkdirSync(join(top, path), { recursive: true });
  }
  writeFileSync(join(root, 'file'), '');
  writeFileSync(join(top, 'secret/x/adapter_model.safetensors'), '');
  symlinkSync(join(top, 'secret/x'), join(root, 'leaves'));
  symlinkSync(join(top, 'root-2/carol'), join(root, 'sibling'));
  symlinkSync(join(root, 'alice'), join(root, 'alias'));
  symlinkSync('loop', join(root, 'loop'));
  mkdirSync(join(root, 'file-leaves'));
  symlinkSync(join(top, 'secret/x/adapter_model.safetensors'), join(root, 'file-leaves/adapter_model.safetensors'));
  mkdirSync(join(root, 'template-leaves/additional_chat_templates'), { recursive: true });
  symlinkSync(
    join(top, 'secret/x/adapter_model.safetensors'),
    join(root, 'template-leaves/additional_chat_templates/a.jinja'),
  );
  // As the hub's cache has it.
  mkdirSync(join(root, 'snapshot'));
  symlinkSync('../file', join(root, 'snapshot/adapter_model.safetensors'));
});
afterAll(() => rmSync(top, { recursive: true }));

const resolve = (id: string, from: ResolverRoot = root, tenant?: string) =>
  folderResolver(from)(id, { signal: new AbortController().signal, ...(tenant === undefined ? {} : { tenant }) });

describe('folderResolver', () => {
  test('gives the folder of that name below its root', async () => {
    for (const id of ['alice', 'team/bob', 'a b é', '..x', 'snapshot']) expect(await resolve(id)).toBe(join(root, id));
    expect(await resolve('alias')).toBe(join(root, 'alice'));
    symlinkSync(root, join(top, 'link'));
    expect(await resolve('alice', join(top, 'link'))).toBe(join(root, 'alice'));
  });

  test.each([
    'nobody',
    'alice/nobody',
    'file',
    'file/x',
    '..',
    '.',
    '../secret/x',
    'alice/../../secret/x',
    'alice/..',
    './alice',
    'alice/.',
    'alice/',
    'alice//x',
    '//alice',
    '/etc',
    '..\\secret\\x',
    'alice\n',
    'x'.repeat(256),
  ])('has no %j', async (id) => {
    expect(await resolve(id)).toBeNull();
  });

  test.each(['leaves', 'sibling', 'leaves/.', 'file-leaves', 'template-leaves'])(
    'refuses %s, a link to elsewhere',
    async (id) => {
      if (id === 'leaves/.') return expect(await resolve(id)).toBeNull();
      await expect(resolve(id)).rejects.toMatchObject({
        code: 'ERR_ADAPTER_FILES',
        message: expect.stringMatching(/is a link that leaves .*root$/),
      });
    },
  );

  test('has a root for each tenant, or none', async () => {
    const from: ResolverRoot = async (tenant) => (tenant === 'u' ? join(top, 't', tenant) : null);
    expect(await resolve('alice', from, 'u')).toBe(join(top, 't/u/alice'));
    expect(await resolve('alice', from, 'v')).toBeNull();
    expect(await resolve('alice', from)).toBeNull();
    // Nobody asks for the root of what is no name.
    const asked: unknown[] = [];
    expect(await resolve('../alice', (tenant) => (asked.push(tenant), root), 'u')).toBeNull();
    expect(asked).toEqual([]);
  });

  test('says when its root is not there, or a link goes round in circles', async () => {
    expect(await codeOf(resolve('alice', join(top, 'gone')))).toBe('ERR_IO');
    expect(await codeOf(resolve('loop'))).toBe('ERR_IO');
    expect(() => folderResolver('')).toThrow(/^root: got ""/);
    expect(() => folderResolver(5 as never)).toThrow(/^root: got 5, wanted a function$/);
    expect(await codeOf(resolve('alice', () => 5 as never))).toBe('ERR_INVALID_OPTION');
  });

  test('serves a base', async () => {
    const { base, engine } = await openFake({}, { adapterResolver: folderResolver(root) });
    await base.generate({ prompt: 'x', maxTokens: 1, adapter: 'team/bob' }).result;
    expect(engine.adapters.get(1)!.spec.files).toEqual([join(root, 'team/bob')]);
    expect(await codeOf(base.generate({ prompt: 'x', adapter: '../secret/x' }).result)).toBe('ERR_ADAPTER_NOT_FOUND');
    await base.dispose();
  });
});
