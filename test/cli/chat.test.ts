import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, describe, expect, it, vi } from 'vitest';
import { baseFolder, newFolder } from '../formats/fixtures.js';
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
const messages = (i: number) => (fake.requests[i] as { messages: { role: string; content: string }[] }).messages;

describe('openlora chat', () => {
  it('says at once that a base has no chat template', async () => {
    fake = new FakeBase();
    const { code, stderr } = await chat(['hello']);
    expect({ code, requests: fake.requests }).toEqual({ code: 1, requests: [] });
    expect(stderr).toContain('this base has no chat template');
    expect(stderr).toContain(`try: openlora generate --base ${folder} --prompt …`);
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

  it('forgets it on /clear, and changes the system message', async () => {
    const { stdout } = await chat([
      '/system',
      'hello',
      '/clear',
      '/system Be kind.',
      'again',
      '/system',
      '/system none',
      'x',
    ]);
    expect(stdout).toBe(
      'no system message\nhello\nconversation forgotten\nsystem message set\nagain\nBe kind.\nno system message\nx\n',
    );
    expect(messages(1)).toEqual([
      { role: 'system', content: 'Be kind.' },
      { role: 'user', content: 'again' },
    ]);
    expect(messages(2)).not.toContainEqual(expect.objectContaining({ role: 'system' }));
  });

  it('begins with the first adapter, and changes it', async () => {
    const { stdout } = await chat(
      ['a', '/adapter b', 'a', '/adapter none', 'a'],
      ['--adapter', `upper=${folder}`, '--adapter', `b=${folder}`],
    );
    expect(stdout).toBe('A\nanswers by b\nb: a\nanswers by the base alone\na\n');
  });

  it('registers an adapter on the way, and lists them', async () => {
    const { stdout } = await chat([`/adapter upper=${folder}`, 'a', '/adapter'], []);
    expect(stdout).toBe('answers by upper\nA\n  none\n* upper\n');
  });

  it('asks again on /retry, with the adapter of now and without the answer of then', async () => {
    const { stdout } = await chat(
      ['a', 'b', '/adapter upper', '/retry'],
      ['--adapter', `x=${folder}`, '-a', `upper=${folder}`],
    );
    expect(stdout).toBe('x: a\nx: b\nanswers by upper\nB\n');
    expect(messages(2).map(({ content }) => content)).toEqual(['a', 'x: a', 'b']);
  });

  it('says who gave each answer, by which generation, and what it took', async () => {
    const { stdout } = await chat(['hello', '/adapter none', 'x', '/stats'], ['--adapter', `upper=${folder}`]);
    expect(stdout).toMatch(/^1 +upper +generation-o +1 +5 +1\.0 ms +1,000 +eos$/m);
    expect(stdout).toMatch(/^2 +base +1 +1 +1\.0 ms/m);
    expect(stdout).toContain('context: 2 of 64 tokens');
  });

  it('saves the conversation, and nothing over a file that is there', async () => {
    const path = await newFolder();
    const { code, stderr } = await chat(
      ['/save x.md', 'hello', `/save ${path}/c.md`, `/save ${path}/c.json`, `/save ${path}/c.md`, '/save'],
      ['--system', 'Be brief.', '--adapter', `upper=${folder}`],
    );
    expect(readFileSync(join(path, 'c.md'), 'utf8')).toBe(
      '## System\n\nBe brief.\n\n## You\n\nhello\n\n## upper\n\nHELLO\n',
    );
    expect(JSON.parse(readFileSync(join(path, 'c.json'), 'utf8'))).toMatchObject({
      base: { family: 'fake' },
      system: 'Be brief.',
      messages: [
        { role: 'user', content: 'hello' },
        { role: 'assistant', content: 'HELLO', adapter: 'upper', adapters: [{ generation: 'generation-of-upper' }] },
      ],
    });
    expect(code).toBe(1);
    expect(stderr).toContain('there is no answer to save yet');
    expect(stderr).toMatch(/c\.md is there already.*\n +try: another name/);
    expect(stderr).toMatch(/FILE is missing\n +try: \/save chat\.md/);
  });

  it('takes a message of several lines', async () => {
    await chat(['one\\', 'two', '"""', 'three', '', 'four"""', '"""five"""', 'c:\\\\', '"""', 'to the end']);
    expect(fake.requests.map((_, i) => messages(i).at(-1)!.content)).toEqual([
      'one\ntwo',
      'three\n\nfour',
      'five',
      'c:\\\\',
      'to the end',
    ]);
  });

  it('writes a line for an answer of no words', async () => {
    fake.generateNothing();
    expect((await chat(['a', 'b'])).stdout).toBe('\n\n');
  });

  it('tells what is wrong, goes on, and ends with exit code 1', async () => {
    const { code, stdout, stderr } = await chat(
      ['/adaptr x', '/adapter uper', '/clear all', '/retry', 'hello', '/exit', 'not read'],
      ['--adapter', `upper=${folder}`],
    );
    expect({ code, stdout }).toEqual({ code: 1, stdout: 'HELLO\n' });
    expect(stderr).toMatch(/unknown command \/adaptr\n +try: \/adapter\n/);
    expect(stderr).toMatch(/no adapter 'uper'\n +try: \/adapter upper\n/);
    expect(stderr).toContain('/clear takes nothing after it');
    expect(stderr).toContain('nothing was asked yet');
  });

  it('takes a path and a slash in a sentence for a message', async () => {
    await chat(['/usr/bin is a folder', '// a comment']);
    expect(fake.requests).toHaveLength(2);
  });

  it('says what to do when the conversation has outgrown the context', async () => {
    const long = 'x'.repeat(40);
    const { code, stderr } = await chat([long, long, '/clear', '/retry', 'y'.repeat(63), 'z'.repeat(65)]);
    expect(code).toBe(1);
    expect(stderr).toMatch(
      /the conversation no longer fits into the context.*\[ERR_CONTEXT_LENGTH\]\n +try: \/clear begins anew/,
    );
    expect(messages(2)).toEqual([{ role: 'user', content: long }]);
  });

  it('says that an answer was cut because the context is full', async () => {
    const { code, stderr } = await chat(['y'.repeat(63)]);
    expect({ code, stderr }).toEqual({ code: 0, stderr: expect.stringContaining('the context of 64 tokens is full') });
  });

  it("says that a message alone doesn't fit", async () => {
    const { stderr } = await chat(['z'.repeat(65)]);
    expect(stderr).toMatch(/the message doesn't fit.*\n +try: a shorter prompt/);
  });
});
