import { beforeEach, describe, expect, it, vi } from 'vitest';
import { baseFolder } from '../formats/fixtures.js';
import { FakeBase } from './fake-base.js';
import { runCli } from './run-cli.js';

let fake: FakeBase;
vi.mock('../../src/index.js', () => ({ loadBase: async () => fake.asBase() }));

let folder: string;
beforeEach(async () => {
  fake = new FakeBase();
  folder = await baseFolder();
});

const generate = (args: string[], options = {}) => runCli(['generate', '--base', folder, ...args], options);

describe('openlora generate', () => {
  it('streams one answer as plain text', async () => {
    const run = await generate(['--prompt', 'hello']);
    expect(run).toEqual({ code: 0, stdout: 'hello\n', stderr: '' });
    expect(fake.isDisposed).toBe(true);
  });

  it('labels several answers, line by line off a terminal', async () => {
    const { code, stdout } = await generate([
      '--adapter',
      `upper=${folder}`,
      '--adapter',
      `b=${folder}`,
      '--with-base',
      '--prompt',
      'one\ntwo',
    ]);
    expect(code).toBe(0);
    expect(stdout.split('\n').sort()).toEqual([
      '',
      'b     │ b: one',
      'b     │ two',
      'base  │ one',
      'base  │ two',
      'upper │ ONE',
      'upper │ TWO',
    ]);
  });

  it('leaves whole answers in order on a terminal', async () => {
    const { stdout } = await generate(['--adapter', `upper=${folder}`, '--with-base', '--prompt', 'ab'], {
      columns: 40,
      env: { NO_COLOR: '1' },
    });
    const last = stdout.slice(stdout.lastIndexOf('\r'));
    expect(last).toContain('base  │ ab\u001b[K\nupper │ AB\u001b[K\n');
    expect(stdout.endsWith('\u001b[?25h')).toBe(true);
  });

  it('prints results as JSON', async () => {
    const { code, stdout, stderr } = await generate([
      '--adapter',
      `upper=${folder}`,
      '--prompt',
      'x',
      '--logprobs',
      '2',
      '--json',
    ]);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(JSON.parse(stdout)).toMatchObject({
      base: { family: 'fake' },
      results: [{ adapter: 'upper', text: 'X', finishReason: 'eos', seed: 7 }],
    });
    expect(fake.requests[0]).toMatchObject({ logprobs: 2 });
  });

  it('passes the sampling options on, and nothing that was not given', async () => {
    const options = [
      '--max-tokens',
      '5',
      '--temperature',
      '0.7',
      '--top-k',
      '3',
      '--top-p',
      '0.9',
      '--seed',
      '11',
      '--stop',
      '.',
      '--stop',
      '!',
    ];
    await generate(['--prompt', 'x', ...options]);
    expect(fake.requests).toEqual([
      { prompt: 'x', maxTokens: 5, temperature: 0.7, topK: 3, topP: 0.9, seed: 11, stop: ['.', '!'] },
    ]);
  });

  it('passes penalties and biases on', async () => {
    const options = '--min-p 0.1 --repetition-penalty 1.2 --presence-penalty -1 --frequency-penalty 0.5'.split(' ');
    await generate(['--prompt', 'x', ...options, '--logit-bias', '7=-Infinity', '--logit-bias', '12=2.5']);
    expect(fake.requests).toEqual([
      {
        prompt: 'x',
        minP: 0.1,
        repetitionPenalty: 1.2,
        presencePenalty: -1,
        frequencyPenalty: 0.5,
        logitBias: { 7: -Infinity, 12: 2.5 },
      },
    ]);
  });

  it.each(['7', 'x=1', '7=', '7=much', '-7=1'])('refuses --logit-bias %s', async (bias) => {
    const { code, stderr } = await generate(['--prompt', 'x', `--logit-bias=${bias}`]);
    expect(code).toBe(2);
    expect(stderr).toContain(`--logit-bias is '${bias}', wanted ID=X`);
  });

  it('reads the prompt from stdin, and writes it as a message', async () => {
    await generate(['--prompt', '-', '--chat'], { stdin: 'from stdin' });
    expect(fake.requests).toEqual([{ messages: [{ role: 'user', content: 'from stdin' }] }]);
  });

  it('prints what an adapter warns of on stderr', async () => {
    const { stdout, stderr } = await generate(['--adapter', `odd=${folder}`, '--prompt', 'x']);
    expect({ stdout, stderr }).toEqual({ stdout: 'odd: x\n', stderr: 'warning: odd: this one is odd\n' });
  });

  it('prints what the base warns of on stderr', async () => {
    fake.info.warnings.push({ code: 'WARN_ODD', message: 'this base is odd' });
    const { stdout, stderr } = await generate(['--prompt', 'x']);
    expect({ stdout, stderr }).toEqual({ stdout: 'x\n', stderr: 'warning: this base is odd\n' });
  });

  it('ends with 130 when it is interrupted, and frees the base', async () => {
    fake.options.chunkMs = 20;
    const controller = new AbortController();
    setTimeout(() => controller.abort(), 60);
    const { code, stdout } = await generate(['--prompt', 'a long prompt that takes a while'], {
      signal: controller.signal,
    });
    expect(code).toBe(130);
    expect('a long prompt that takes a while'.startsWith(stdout)).toBe(true);
    expect(fake.isDisposed).toBe(true);
  });
});
