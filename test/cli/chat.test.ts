import { beforeEach, describe, expect, it, vi } from 'vitest';
import { baseFolder } from '../formats/fixtures.js';
import { FakeBase } from './fake-base.js';
import { runCli } from './run-cli.js';

let fake: FakeBase;
vi.mock('../../src/index.js', () => ({ loadBase: async () => fake.asBase() }));

let folder: string;
beforeEach(async () => {
  fake = new FakeBase({ hasChatTemplate: true });
  folder = await baseFolder();
});

const chat = (lines: string[], args: string[] = []) =>
  runCli(['chat', '--base', folder, ...args], { stdin: lines.map((line) => `${line}\n`).join('') });
const messages = (i: number) => (fake.requests[i] as { messages: unknown[] }).messages;

describe('openlora chat', () => {
  it('says at once that a base has no chat template', async () => {
    fake = new FakeBase();
    const { code, stderr } = await chat(['hello']);
    expect({ code, requests: fake.requests }).toEqual({ code: 1, requests: [] });
    expect(stderr).toContain('this base has no chat template');
    expect(stderr).toContain('try: openlora generate --prompt');
    expect(fake.isDisposed).toBe(true);
  });

  it('keeps the conversation', async () => {
    const { code, stdout } = await chat(['hello', 'again'], ['--system', 'Be brief.']);
    expect({ code, stdout }).toEqual({ code: 0, stdout: 'hello\nagain\n' });
    expect(messages(1)).toEqual([
      { role: 'system', content: 'Be brief.' },
      { role: 'user', content: 'hello' },
      { role: 'assistant', content: 'hello' },
      { role: 'user', content: 'again' },
    ]);
  });

  it('forgets it on /reset, and changes the system message', async () => {
    await chat(['hello', '/reset', '/system Be kind.', 'again']);
    expect(messages(1)).toEqual([
      { role: 'system', content: 'Be kind.' },
      { role: 'user', content: 'again' },
    ]);
  });

  it('begins with the first adapter, and changes it', async () => {
    const { stdout } = await chat(
      ['a', '/adapter b', 'a', '/adapter none', 'a'],
      ['--adapter', `upper=${folder}`, '--adapter', `b=${folder}`],
    );
    expect(stdout).toBe('A\nanswers by b\nb: a\nanswers by the base alone\na\n');
  });

  it('registers an adapter on the way', async () => {
    const { stdout } = await chat([`/adapter upper=${folder}`, 'a', '/adapter'], []);
    expect(stdout).toBe('answers by upper\nA\n    none\n  * upper\n');
  });

  it('tells what is wrong and goes on', async () => {
    const { code, stdout, stderr } = await chat(
      ['/adaptr x', '/adapter uper', 'hello', '/exit', 'not read'],
      ['--adapter', `upper=${folder}`],
    );
    expect({ code, stdout }).toEqual({ code: 0, stdout: 'HELLO\n' });
    expect(stderr).toContain('unknown command /adaptr');
    expect(stderr).toContain('try: /adapter');
    expect(stderr).toContain("no adapter 'uper'");
    expect(stderr).toContain('try: upper');
  });
});
