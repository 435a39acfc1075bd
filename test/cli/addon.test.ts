import { existsSync, readFileSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { DemoSummary } from '../../src/cli/demo/report.js';
import type { DemoRow } from '../../src/cli/demo/serve.js';
import { demoFolder } from '../../src/cli/demo/tasks.js';
import { PARITY_ADAPTERS, makeFamily, missingForAddon, writeTasks, type Family } from './addon-family.js';
import { runCli } from './run-cli.js';

interface Answer {
  adapter: string | null;
  text: string;
  finishReason: string;
}

const missing = missingForAddon();
const PROMPTS = ['hello', 'a longer prompt than the others', 'x', '12', 'once upon a time'];

describe.skipIf(missing)(`the CLI on the real engine ${missing}`, () => {
  let family: Family;
  beforeAll(() => {
    family = makeFamily();
  });
  afterAll(() => family.remove());

  async function answers(prompt: string, adapters: string[], ...more: string[]): Promise<Answer[]> {
    const named = adapters.flatMap((name) => ['--adapter', family.adapter(name)]);
    const { code, stdout, stderr } = await runCli([
      'generate',
      '--base',
      family.base,
      ...named,
      '--prompt',
      prompt,
      '--json',
      ...more,
    ]);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    return (JSON.parse(stdout) as { results: Answer[] }).results;
  }

  it('generates with several adapters at once what each of them answers alone', async () => {
    const together = await answers('hello', PARITY_ADAPTERS, '--with-base');
    expect(together.map(({ adapter }) => adapter)).toEqual([null, ...PARITY_ADAPTERS]);
    const [base] = await answers('hello', []);
    expect(together[0]!.text).toBe(base!.text);
    for (const [i, name] of PARITY_ADAPTERS.entries()) {
      const [alone] = await answers('hello', [name]);
      expect(together[i + 1]!.text).toBe(alone!.text);
    }
  });

  it('computes in bf16 where asked to, and says with what weights it can', async () => {
    const [one] = await answers('hello', [], '--dtype', 'bf16', '--compute', 'bf16');
    expect(one).toMatchObject({ adapter: null });
    const words = ['generate', '--base', family.base, '--prompt', 'x', '--dtype', 'f32', '--compute', 'bf16'];
    const { code, stderr } = await runCli(words);
    expect(code).toBe(1);
    expect(stderr).toContain(`compute: got "bf16", wanted 'f32' with weights in f32, or dtype 'bf16' beside it`);
    expect(stderr).toContain('--compute');
  });

  it('keeps packed weights where --cache-dir says, answers the same out of them, and warns where it can keep none', async () => {
    const cache = join(family.base, 'packed');
    const textOf = async (...more: string[]) =>
      (await answers('12', [], '--dtype', 'int8', '--temperature', '0', ...more))[0]!.text;
    const plain = await textOf();
    expect(plain).not.toBe('');
    expect(await textOf('--cache-dir', cache)).toBe(plain);
    const [name, ...others] = readdirSync(cache);
    expect([name, others]).toEqual([expect.stringMatching(/\.weights$/), []]);
    const { ino } = statSync(join(cache, name!));
    expect(await textOf('--cache-dir', cache)).toBe(plain);
    expect(readdirSync(cache).map((kept) => statSync(join(cache, kept)).ino)).toEqual([ino]);
    const none = join(cache, name!, 'below');
    const args = ['generate', '--base', family.base, '--prompt', 'hello', '--cache-dir', none];
    const { code, stderr } = await runCli(args);
    expect({ code, stderr }).toEqual({ code: 0, stderr: expect.stringContaining(`warning: the cache of packed`) });
    expect(stderr).toContain(none);
  });

  it('computes on a GPU where asked to, and says why it cannot', async () => {
    const words = ['--base', family.base, '--prompt', 'x', '--device'];
    const { code, stderr } = await runCli(['generate', ...words, 'cuda:0']);
    expect(code).toBe(1);
    expect(stderr).toContain('ERR_CUDA_DRIVER');
    expect(stderr).toContain(`device: 'cuda:0' can't be used`);
    expect((await runCli(['generate', ...words, 'cpu', '--max-tokens', '1'])).code).toBe(0);
    const unknown = await runCli(['generate', ...words, 'gpu']);
    expect(unknown.stderr).toContain(`device: got "gpu"`);
  });

  it('passes a refused adapter on with its code', async () => {
    const { code, stderr } = await runCli([
      'generate',
      '--base',
      family.base,
      '--adapter',
      family.base,
      '--prompt',
      'x',
    ]);
    expect({ code, stderr }).toEqual({ code: 1, stderr: expect.stringContaining('[ERR_ADAPTER_FILES]') });
  });

  it('chats: each turn is answered as the same conversation is by generate, by the adapter of that turn', async () => {
    const path = join(family.base, 'tokenizer_config.json');
    const config = JSON.parse(readFileSync(path, 'utf8')) as object;
    const template = '{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}>';
    writeFileSync(path, JSON.stringify({ ...config, chat_template: template }));
    const [first, second] = PARITY_ADAPTERS;
    const saved = join(family.folder, 'chat.json');
    const { code, stderr } = await runCli(
      ['chat', '--base', family.base, ...[first, second].flatMap((name) => ['--adapter', family.adapter(name!)])],
      { stdin: `hello\n/adapter ${second}\nand you?\n/save ${saved}\n` },
    );
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    const { messages } = JSON.parse(readFileSync(saved, 'utf8')) as {
      messages: { content: string; adapter?: string }[];
    };
    expect(messages.map(({ adapter }) => adapter)).toEqual([undefined, first, undefined, second]);
    const [one] = await answers('<user>hello>', [first!]);
    const [two] = await answers(`<user>hello<assistant>${one!.text}<user>and you?>`, [second!]);
    expect(messages.map(({ content }) => content)).toEqual(['hello', one!.text, 'and you?', two!.text]);
  });

  it('runs a demo: every request of a mixed batch of 64 is answered as it is alone', async () => {
    const right = new Map<string, string>();
    for (const prompt of PROMPTS) {
      for (const { adapter, text } of await answers(prompt, PARITY_ADAPTERS)) right.set(`${adapter} ${prompt}`, text);
    }
    writeTasks(family, PROMPTS, (adapter, prompt) => right.get(`${adapter} ${prompt}`)!);
    // Both are terminals: bars are drawn on stderr, and stdout has the document alone.
    const { code, stdout, stderr } = await runCli(['demo', '--folder', family.folder, '--no-memory', '--json'], {
      columns: 80,
    });
    expect(stderr).toContain('━');
    const { summary, requests } = JSON.parse(stdout) as { summary: DemoSummary; requests: DemoRow[] };
    expect(requests.filter(({ state }) => state !== 'right')).toEqual([]);
    for (const { ttftMs, tokensPerSecond, tokens, finishReason } of requests) {
      expect(finishReason).toBe('eos');
      expect(ttftMs).toBeGreaterThan(0);
      expect(ttftMs).toBeLessThanOrEqual(summary.wallMs);
      if (tokens > 1) expect(tokensPerSecond).toBeGreaterThan(0);
    }
    expect(requests.reduce((sum, { tokens }) => sum + tokens, 0)).toBe(summary.tokensOut);
    const ttfts = requests.map(({ ttftMs }) => ttftMs!).sort((a, b) => a - b);
    expect(summary.ttftMs).toEqual({ median: ttfts[32], max: ttfts[63] });
    expect(summary.tokensPerSecond).toBeCloseTo((summary.tokensOut * 1000) / summary.wallMs);
    expect({ code, right: summary.right, expected: summary.expectedAtLeast }).toEqual({
      code: 0,
      right: 64,
      expected: 64,
    });
    expect(summary.rowsPerStep).toBeGreaterThan(1);
    // The embedding is looked up row by row; everything else is read whole.
    expect(summary.weightBytesPerStep / summary.weightBytes).toBeGreaterThan(0.5);
    expect(summary.weightBytesPerStep / summary.weightBytes).toBeLessThanOrEqual(1.01);
  });

  it('fails a demo in which fewer are right than expected, and says which', async () => {
    writeTasks(family, PROMPTS, () => 'something else');
    const { code, stdout } = await runCli(['demo', '--folder', family.folder, '--no-memory']);
    expect(code).toBe(1);
    expect(stdout).toContain('✗ 0 of 64 answers right');
    expect(stdout).toContain('expected: at least 64');
    expect(stdout).toContain('wanted something else');
    expect(stdout).not.toContain('\u001b');
  });

  it('draws the demo live on a terminal', async () => {
    const { stdout } = await runCli(['demo', '--folder', family.folder, '--no-memory', '--fast'], {
      columns: 80,
      env: { NO_COLOR: '1' },
    });
    expect(stdout).toContain('\u001b[?25l');
    expect(stdout.lastIndexOf('\u001b[?25h')).toBeGreaterThan(stdout.lastIndexOf('\u001b[?25l'));
    expect(stdout).toMatch(/0 right, 64 wrong/);
  });
});

const noDemo = missing || (existsSync(`${demoFolder()}/tasks.json`) ? '' : 'needs demo/: sh demo/train/make.sh');
describe.skipIf(noDemo)(`openlora demo ${noDemo}`, () => {
  it('answers as many of 64 right as transformers + peft', async () => {
    const { code, stdout } = await runCli(['demo', '--no-memory', '--json']);
    const { summary, requests } = JSON.parse(stdout) as { summary: DemoSummary; requests: DemoRow[] };
    expect({ code, requests: summary.requests, adapters: summary.adapters.length }).toEqual({
      code: 0,
      requests: 64,
      adapters: 12,
    });
    expect(summary.right).toBeGreaterThanOrEqual(summary.expectedAtLeast);
    const reference = JSON.parse(readFileSync(`${demoFolder()}/reference.json`, 'utf8')) as {
      adapters: Record<string, { cases: { prompt: string; text: string }[] }>;
    };
    const referenceOf = ({ adapter, prompt }: DemoRow) =>
      reference.adapters[adapter]!.cases.find((entry) => entry.prompt === prompt)!.text;
    const right = requests.filter((row) => referenceOf(row) === row.wanted).length;
    expect(right).toBeGreaterThan(60);
    expect(summary.right).toBeGreaterThanOrEqual(right);
  });
});
