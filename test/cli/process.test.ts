// The CLI as a process: its signals, its pipes, and the fresh processes in which it measures.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { buildCli, type BuiltCli } from './built-cli.js';
import { makeFamily, missingForAddon, writeTasks, type Family } from './addon-family.js';

let cli: string;
let built: BuiltCli;
beforeAll(async () => {
  built = await buildCli('cli');
  cli = built.script;
});
afterAll(() => rmSync(built.folder, { recursive: true, force: true }));

async function run(...args: string[]) {
  const child = spawn(process.execPath, [cli, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  const closed = once(child, 'close');
  const [stdout, stderr] = await Promise.all([text(child.stdout), text(child.stderr)]);
  const [code] = (await closed) as [number | null];
  return { code, stdout, stderr };
}

describe('the process', () => {
  it('prints help without loading the SDK or the hub', async () => {
    const { code, stdout, stderr } = await run('--help');
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout).toContain('Commands:');
  });

  it('writes everything before it ends, into a pipe', async () => {
    const { code, stdout } = await run('doctor', '--json');
    expect([0, 1]).toContain(code);
    expect(() => JSON.parse(stdout) as unknown).not.toThrow();
  });
});

const missing = missingForAddon();
describe.skipIf(missing)(`the process with an engine ${missing}`, () => {
  let family: Family;
  beforeAll(() => {
    family = makeFamily();
    writeTasks(family, ['hello', 'x'], () => 'right');
  });
  afterAll(() => family.remove());

  const endless = () => {
    const many = Array.from({ length: 64 }, (_, i) => ['--adapter', `a${i}=${family.adapter('r1')}`]).flat();
    return spawn(process.execPath, [cli, 'generate', '--base', join(family.folder), ...many, '--prompt', 'hello'], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
  };

  it('ends quietly when the reader of its output goes away', async () => {
    const child = endless();
    const errors = text(child.stderr);
    await once(child.stdout, 'data');
    child.stdout.destroy();
    const [code] = (await once(child, 'close')) as [number];
    expect({ code, stderr: await errors }).toEqual({ code: 0, stderr: '' });
  });

  it('ends with 130 on Ctrl-C, cancelling what runs', async () => {
    const child = spawn(process.execPath, [cli, 'demo', '--folder', family.folder, '--requests', '4096'], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const errors = text(child.stderr);
    // The head is printed once everything is loaded, the table after the last answer.
    const [head] = (await once(child.stdout, 'data')) as [Buffer];
    child.kill('SIGINT');
    child.stdout.resume();
    const [code] = (await once(child, 'close')) as [number];
    expect({ code, stderr: await errors }).toEqual({ code: 130, stderr: '' });
    expect(head.toString()).not.toContain('tokens/s');
  });

  it('measures memory in fresh processes: one shared base against one full model per adapter', async () => {
    const { stdout } = await run('demo', '--folder', family.folder, '--json', '--threads', '1');
    const { memory } = JSON.parse(stdout);
    expect(memory.copies.count).toBe(5);
    expect(memory.copies.modelBytes).toBeGreaterThan(memory.shared.modelBytes);
    expect(memory.copies.rssGrowthBytes).toBeGreaterThan(memory.shared.rssGrowthBytes);
  });
});
