import { describe, expect, it } from 'vitest';
import { packageVersion } from '../../src/native/package-root.js';
import { adapterFolder } from '../formats/fixtures.js';
import { runCli } from './run-cli.js';

describe('openlora', () => {
  it('prints its commands, and asks for one with exit code 2', async () => {
    const { code, stdout } = await runCli([]);
    expect(code).toBe(2);
    expect(stdout).toMatchInlineSnapshot(`
      "openlora 0.1.0: thousands of LoRA adapters on one shared base, in your Node process.

      Usage: openlora COMMAND [options]

      Commands:
        demo        serve 64 mixed requests for twelve adapters on one base, live
        generate    continue a prompt, with one adapter or several at once
        chat        talk with a base and its adapters
        inspect     say what is in a base or an adapter folder, and whether it fits
        doctor      say what this machine offers and which binary runs
        pull        download a base or an adapter from the Hugging Face hub
        bench       measure speed beside this machine's limits, compare and plot the results
        build       build the native addon from the sources in the package
        completion  print the completion script of a shell

      Start here:
        $ openlora demo
        $ openlora COMMAND --help
      "
    `);
    expect((await runCli(['--help'])).code).toBe(0);
  });

  it('prints its version alone', async () => {
    expect(await runCli(['--version'])).toEqual({ code: 0, stdout: `${packageVersion()}\n`, stderr: '' });
  });

  it('has help for each command, as an option and as a command', async () => {
    for (const name of ['demo', 'generate', 'chat', 'inspect', 'doctor', 'pull', 'build', 'completion']) {
      const { code, stdout, stderr } = await runCli([name, '--help']);
      expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
      expect(stdout).toContain(`Usage: openlora ${name}`);
      expect(await runCli(['help', name])).toEqual({ code, stdout, stderr });
      for (const line of stdout.split('\n')) if (!line.includes('$ ')) expect(line.length).toBeLessThanOrEqual(80);
    }
  });

  it('shows the options of a command', async () => {
    expect((await runCli(['inspect', '--help'])).stdout).toMatchInlineSnapshot(`
      "Say what is in a base or an adapter folder, and whether it fits.

      Usage: openlora inspect DIR [--base DIR]

      Reads configs and tensor headers only. With --base, an adapter is checked
      against that base; exit code 1 if it does not fit.

      Options:
        -b, --base DIR  base that the adapter is for
        --json          print JSON on stdout, nothing else
        -h, --help      show this help

      Examples:
        $ openlora inspect ./llama
        $ openlora inspect ./my-adapter --base ./llama
      "
    `);
  });
});

describe('a wrong command line', () => {
  it.each([
    [['gnerate'], "unknown command 'gnerate'", 'openlora generate'],
    [['xyzzy'], "unknown command 'xyzzy'", 'one of demo, generate'],
    [['--verison'], 'unknown option --verison', 'openlora --help'],
    [['generate', '--tempratur', '1'], 'unknown option --tempratur', '--temperature'],
    [['generate', '--prompt', 'x'], '--base is missing', 'openlora generate --help'],
    [['generate', '--base', '.'], '--prompt is missing', 'openlora generate --help'],
    [['generate', '--prompt', '--base', '.'], '--prompt needs a value: --prompt TEXT', 'openlora generate --help'],
    [
      ['generate', '--max-tokens', '1.5'],
      "--max-tokens is '1.5', wanted an integer of at least 1",
      'openlora generate --help',
    ],
    [['generate', '--top-p=2'], "--top-p is '2', wanted a number from 0 to 1", 'openlora generate --help'],
    [
      ['generate', '--temperature', '-1'],
      "--temperature is '-1', wanted a number of at least 0",
      'openlora generate --help',
    ],
    [
      ['generate', '--dtype', 'fp16'],
      "--dtype is 'fp16', wanted one of auto, f32, bf16, f16, int8, int4",
      '--dtype f16',
    ],
    [['generate', '--seed', '1', '--seed', '2'], '--seed was given twice', 'openlora generate --help'],
    [['generate', '--with-base=1'], "--with-base is a flag, it takes no value; got '1'", 'openlora generate --help'],
    [['generate', 'hello'], "unexpected argument 'hello'", '--prompt TEXT, in quotes'],
    [
      ['generate', '--base', '.', '--prompt', 'x', '--adapter', 'a/x', '--adapter', 'b/x'],
      "two adapters are called 'x'",
      'give them names',
    ],
    [
      ['generate', '--base', '.', '--prompt', 'x', '--logprobs', '2'],
      '--logprobs is printed with --json only',
      'add --json',
    ],
    [['chat', 'hello'], "unexpected argument 'hello'", 'openlora chat --help'],
    [['inspect'], 'DIR is missing', 'openlora inspect --help'],
    [['completion'], 'SHELL is missing, wanted one of bash, zsh, fish', 'openlora completion --help'],
    [['completion', 'fis'], "SHELL is 'fis', wanted one of bash, zsh, fish", 'openlora completion fish'],
    [['generate', '--base', '.', '--prompt', 'x', '--simd', 'avx'], "--simd is 'avx'", '--simd avx2'],
    [['doctor', 'now'], "unexpected argument 'now'", 'openlora doctor --help'],
  ])('%j is told what is wrong and what to try, with exit code 2', async (args, message, hint) => {
    const { code, stdout, stderr } = await runCli(args);
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
    expect(stderr).toContain(`error: ${message}`);
    expect(stderr).toContain(`  try: ${hint}`);
  });

  it('is JSON on stdout where JSON was asked for', async () => {
    const { code, stdout, stderr } = await runCli(['pull', 'nonsense', '--json']);
    expect(code).toBe(2);
    expect(JSON.parse(stdout)).toEqual({
      error: {
        code: 'ERR_USAGE',
        message: "'nonsense' is no name on the hub, wanted ORG/NAME",
        hint: 'openlora pull Qwen/Qwen2.5-0.5B',
      },
    });
    expect(stderr).toContain('error:');
  });

  it('says so where an adapter is given as a base', async () => {
    const path = await adapterFolder();
    const { code, stderr } = await runCli(['generate', '--base', path, '--prompt', 'x']);
    expect(code).toBe(1);
    expect(stderr).toContain(`${path} holds an adapter, wanted a base`);
    expect(stderr).toContain(`try: --base BASE --adapter ${path}`);
  });

  it('names the hub where a folder looks like a repository', async () => {
    const { code, stderr } = await runCli(['generate', '--base', 'Qwen/Qwen2.5-0.5B', '--prompt', 'x']);
    expect({ code, stderr }).toEqual({
      code: 1,
      stderr: expect.stringContaining('try: openlora pull Qwen/Qwen2.5-0.5B'),
    });
  });
});

describe('colours', () => {
  const ESCAPE = '\u001b[';

  it.each([
    ['off a terminal', {}, undefined, false],
    ['on a terminal', {}, 80, true],
    ['on a terminal with NO_COLOR', { NO_COLOR: '1' }, 80, false],
    ['on a dumb terminal', { TERM: 'dumb' }, 80, false],
    ['off a terminal with FORCE_COLOR', { FORCE_COLOR: '1' }, undefined, true],
    ['on a terminal with FORCE_COLOR=0', { FORCE_COLOR: '0' }, 80, false],
  ])('%s: %j', async (_, env, columns, isColoured) => {
    const { stdout } = await runCli(['--help'], columns === undefined ? { env } : { env, columns });
    expect(stdout.includes(ESCAPE)).toBe(isColoured);
  });
});
