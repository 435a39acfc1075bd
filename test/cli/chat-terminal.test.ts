// A chat on a terminal: keys go in, and what the terminal would show comes out.

import { PassThrough } from 'node:stream';
import { mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { stripVTControlCharacters } from 'node:util';
import { beforeEach, describe, expect, it, vi } from 'vitest';
import { HISTORY_LINES_MAX, History, historyPath } from '../../src/cli/chat/history.js';
import { baseFolder, newFolder } from '../formats/fixtures.js';
import { FakeBase } from './fake-base.js';
import { runCli } from './run-cli.js';

let fake: FakeBase;
vi.mock('../../src/index.js', () => ({ loadBase: async () => fake.asBase() }));

let folder: string;
let env: NodeJS.ProcessEnv;
beforeEach(async () => {
  fake = new FakeBase({ hasChatTemplate: true });
  folder = await baseFolder();
  env = { XDG_STATE_HOME: await newFolder(), NO_COLOR: '1' };
});

const [CTRL_C, CTRL_D, UP, TAB, ENTER] = ['\u0003', '\u0004', '\u001b[A', '\t', '\r'];
const [PASTE, PASTED] = ['\u001b[200~', '\u001b[201~'];
const asked = () =>
  fake.requests.map((request) => (request as unknown as { messages: { content: string }[] }).messages.at(-1)!.content);

/** Waits for `after` to be shown, after what was shown for the step before, then types `keys`. */
type Step = [after: string | RegExp, keys: string];

async function terminal(steps: Step[], args: string[] = []) {
  const stdin = Object.assign(new PassThrough(), { isTTY: true, setRawMode: () => undefined });
  let [at, step] = [0, 0];
  const onOutput = (all: string) => {
    const next = steps[step];
    if (!next) return;
    const fresh = stripVTControlCharacters(all).slice(at);
    const found = typeof next[0] === 'string' ? fresh.includes(next[0]) : next[0].test(fresh);
    if (!found) return;
    at += fresh.length;
    step++;
    setTimeout(() => stdin.write(next[1]), 5);
  };
  const stuck = new AbortController();
  const timer = setTimeout(() => stuck.abort(), 10_000);
  const options = { env, stdin, columns: 80, onOutput, signal: stuck.signal };
  const { code, stdout, stderr } = await runCli(['chat', '--base', folder, ...args], options);
  clearTimeout(timer);
  expect(step, `the chat ended at step ${step}: ${JSON.stringify(stdout)}`).toBe(steps.length);
  return { code, shown: stripVTControlCharacters(stdout), stdout, stderr };
}

const PROMPT = 'base> ';
const LEAVE: Step = [PROMPT, CTRL_D];

describe('openlora chat on a terminal', () => {
  it('answers, says what that took, and leaves on Ctrl-D', async () => {
    const { code, shown, stdout } = await terminal([[PROMPT, `hello${ENTER}`], LEAVE]);
    expect({ code, asked: asked() }).toEqual({ code: 0, asked: ['hello'] });
    expect(shown).toMatch(/hello\r?\n5 tokens, 1,000 tokens\/s, first after 1\.0 ms, context 9 %\n/);
    // Pasting is marked while the chat runs.
    expect(stdout.indexOf('\u001b[?2004h')).toBeLessThan(stdout.lastIndexOf('\u001b[?2004l'));
    expect(fake.isDisposed).toBe(true);
  });

  it('ends an answer on Ctrl-C, and goes on', async () => {
    fake = new FakeBase({ hasChatTemplate: true, chunkMs: 10 });
    const { code, shown } = await terminal([
      [PROMPT, `a very long answer, and longer${ENTER}`],
      [/a very/, CTRL_C],
      [/stopped, \d+ tokens[^]*base> /, `b${ENTER}`],
      LEAVE,
    ]);
    expect({ code, asked: asked() }).toEqual({ code: 0, asked: ['a very long answer, and longer', 'b'] });
    expect(shown).not.toContain('and longer\n');
  });

  it('throws a line away on Ctrl-C, and leaves on the second one of an empty line', async () => {
    const { code, shown } = await terminal([
      [PROMPT, `half a li${CTRL_C}`],
      [PROMPT, CTRL_C],
      [/Ctrl-D or \/exit leaves[^]*base> /, CTRL_C],
    ]);
    expect({ code, asked: asked() }).toEqual({ code: 0, asked: [] });
    expect(shown).toContain('half a li');
  });

  it('keeps what is typed during an answer for the next prompt, and shows none of it before', async () => {
    fake = new FakeBase({ hasChatTemplate: true, chunkMs: 10 });
    const { shown } = await terminal([
      [PROMPT, `the first${ENTER}`],
      [/th/, `second${ENTER}thi`],
      [/base> second[^]*base> thi/, `rd${ENTER}`],
      LEAVE,
    ]);
    expect(asked()).toEqual(['the first', 'second', 'third']);
    expect(shown).toMatch(/the first\n9 tokens/);
  });

  it('takes what is pasted as one message', async () => {
    await terminal([[PROMPT, `see: ${PASTE}one\rtwo\rthree${PASTED}`], ['three', ` end${ENTER}`], LEAVE]);
    expect(asked()).toEqual(['see: one\ntwo\nthree end']);
  });

  it('completes commands, adapters and folders', async () => {
    const around = await newFolder();
    mkdirSync(join(around, 'an-adapter'));
    writeFileSync(join(around, 'an-adapter', 'adapter_config.json'), '{}');
    await terminal(
      [
        ['upper> ', `/ad${TAB}`],
        ['/adapter ', `oth${TAB}`],
        ['other', ENTER],
        ['other> ', `/st${TAB}`],
        ['/stats', ENTER],
        ['no answers yet', `hi${ENTER}`],
        ['other> ', `/adapter x=${around}/an${TAB}`],
        [`x=${around}/an-adapter`, ENTER],
        ['answers by x', ''],
        ['x> ', CTRL_D],
      ],
      ['--adapter', `upper=${folder}`, '--adapter', `other=${folder}`],
    );
    expect(fake.requests).toMatchObject([{ adapter: 'other' }]);
  });

  it('brings back what was typed, in this session and in the next', async () => {
    await terminal([[PROMPT, `first${ENTER}`], [PROMPT, ` secret${ENTER}`], [PROMPT, `second${ENTER}`], LEAVE]);
    const path = join(env.XDG_STATE_HOME!, 'openlora', 'chat-history');
    expect(readFileSync(path, 'utf8')).toBe('first\nsecond\n');
    expect(statSync(path).mode & 0o777).toBe(0o600);
    expect(statSync(dirname(path)).mode & 0o777).toBe(0o700);
    fake.requests.length = 0;
    await terminal([[PROMPT, UP], ['second', UP], ['first', ENTER], LEAVE]);
    expect(asked()).toEqual(['first']);
  });

  it('reads and writes no history with --no-history, nor off a terminal', async () => {
    await terminal([[PROMPT, `first${ENTER}`], LEAVE], ['--no-history']);
    await runCli(['chat', '--base', folder], { env, stdin: 'x\n' });
    expect(() => statSync(join(env.XDG_STATE_HOME!, 'openlora'))).toThrow('ENOENT');
  });

  it('says that it has no history where none can be kept, and chats', async () => {
    writeFileSync(join(env.XDG_STATE_HOME!, 'openlora'), 'a file in the way');
    const { code, stderr } = await terminal([[PROMPT, `first${ENTER}`], LEAVE]);
    expect({ code, asked: asked(), stderr }).toEqual({
      code: 0,
      asked: ['first'],
      stderr: expect.stringMatching(/no history: E/),
    });
  });
});

describe('the history', () => {
  it('is in the state folder, and in the usual one where that is not absolute', () => {
    expect(historyPath({ XDG_STATE_HOME: '/s' })).toBe('/s/openlora/chat-history');
    expect(historyPath({ XDG_STATE_HOME: 's', HOME: '/h' })).toBe('/h/.local/state/openlora/chat-history');
    expect(historyPath({ HOME: '/h' })).toBe('/h/.local/state/openlora/chat-history');
  });

  it('is bounded, keeps the newest, and is made private', async () => {
    const path = join(await newFolder(), 'deep', 'history');
    mkdirSync(dirname(path));
    const lines = Array.from({ length: HISTORY_LINES_MAX + 5 }, (_, i) => `line ${i}`);
    writeFileSync(path, `${lines.join('\n')}\n`, { mode: 0o644 });
    const history = new History(path);
    expect(history.problem).toBeUndefined();
    expect([history.lines.length, history.lines[0], history.lines.at(-1)]).toEqual([
      HISTORY_LINES_MAX,
      lines.at(-1),
      lines[5],
    ]);
    expect(readFileSync(path, 'utf8')).toBe(`${lines.slice(5).join('\n')}\n`);
    expect(statSync(path).mode & 0o777).toBe(0o600);
  });

  it('keeps no empty, doubled, hidden, huge or many-lined entry', async () => {
    const path = join(await newFolder(), 'history');
    const history = new History(path);
    for (const line of ['a', '', '  ', 'a', ' hidden', 'x'.repeat(5000), 'a\nb', 'b  ']) history.add(line);
    expect(readFileSync(path, 'utf8')).toBe('a\nb\n');
  });
});
