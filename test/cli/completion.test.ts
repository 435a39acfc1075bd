// What completion offers, and that the three shells ask for it and put it on the line.

import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { COMMANDS, LISTED } from '../../src/cli/commands.js';
import { candidatesFor } from '../../src/cli/complete.js';
import { completePath } from '../../src/cli/paths.js';
import { buildCli, type BuiltCli } from './built-cli.js';
import { runCli } from './run-cli.js';

/** With folders that need quotes, and one of each kind. */
function makeTree(): string {
  const root = mkdtempSync(join(tmpdir(), 'openlora-completion-'));
  const put = (path: string, text = '') => {
    mkdirSync(join(root, path, '..'), { recursive: true });
    writeFileSync(join(root, path), text);
  };
  put('models/llama/config.json', '{"model_type": "llama"}');
  put('models/my base/config.json', '{}');
  put('models/notes.txt');
  put('adapters/terse/adapter_config.json', '{"r": 8, "base_model_name_or_path": "org/llama"}');
  put('adapters/broken/adapter_config.json', '{');
  put('adapters/more/deep/adapter_config.json', '{"r": 4}');
  put('.hidden/config.json', '{}');
  put('node_modules/x/config.json', '{}');
  return root;
}

let root: string;
beforeAll(() => {
  root = makeTree();
});
afterAll(() => rmSync(root, { recursive: true }));

const values = async (...words: string[]) => (await candidatesFor(words)).items.map(({ value }) => value);

describe('completion', () => {
  it('offers every command that help shows, and what each takes', async () => {
    expect(await values('')).toEqual(LISTED.map(([name]) => name));
    expect(await values('ge')).toEqual(['generate']);
    expect(await values('help', 'do')).toEqual(['doctor']);
    expect(await values('--v')).toEqual(['--version']);
    expect(await values('complete', '')).toEqual([]);
  });

  it.each(LISTED.map(([name]) => name))('offers of %s the options that its help shows, and no other', async (name) => {
    const { stdout } = await runCli([name, '--help']);
    const inHelp = [...stdout.matchAll(/^ {2}(?:-\w, )?(--[\w-]+)/gm)].map(([, option]) => option!);
    expect(await values(name, '--')).toEqual(inHelp);
    expect(inHelp).toContain('--help');
  });

  it('offers the choices of every option that has some, joined or apart', async () => {
    let count = 0;
    for (const [name, { load }] of LISTED) {
      for (const [option, table] of Object.entries((await load()).options)) {
        if (table.kind !== 'text' || !table.choices) continue;
        count++;
        expect(await values(name, `--${option}`, '')).toEqual(table.choices);
        expect(await values(name, `--${option}=`)).toEqual(table.choices.map((choice) => `--${option}=${choice}`));
      }
    }
    expect(count).toBeGreaterThanOrEqual(4);
    expect(await values('chat', '--simd', 'avx')).toEqual(['avx2', 'avx512', 'avx512-vnni']);
    expect(await values('completion', '')).toEqual(['bash', 'zsh', 'fish']);
  });

  it('offers no option twice, but lists, and none after --', async () => {
    expect(await values('chat', '--base', 'x', '--ba')).toEqual([]);
    expect(await values('chat', '-b', 'x', '--ba')).toEqual([]);
    expect(await values('chat', '--adapter=x', '--ad')).toEqual(['--adapter', '--adapter-dtype']);
    expect(await values('inspect', '--', '--')).toEqual([]);
    expect(await values('generate', '--prompt', '')).toEqual([]);
    expect(await values('nonsense', '')).toEqual([]);
  });

  it('offers folders, first those that are wanted, with what they are', async () => {
    const under = (path: string) => join(root, path);
    expect(await candidatesFor(['chat', '--base', under('models/')])).toEqual({
      kind: 'paths',
      items: [
        { value: under('models/llama'), summary: 'base: llama' },
        { value: under('models/my base'), summary: 'base' },
      ],
    });
    expect(await candidatesFor(['chat', '-a', under('adapters/')])).toEqual({
      kind: 'paths',
      items: [
        { value: under('adapters/broken'), summary: 'adapter' },
        { value: under('adapters/terse'), summary: 'adapter of rank 8 for org/llama' },
        { value: `${under('adapters/more')}/` },
      ],
    });
    expect(await values('chat', '--adapter', `t=${under('adapters/te')}`)).toEqual([`t=${under('adapters/terse')}`]);
    expect(await values('chat', `--base=${under('models/l')}`)).toEqual([`--base=${under('models/llama')}`]);
    expect(await values('inspect', under('adapters/t'))).toEqual([under('adapters/terse')]);
    expect(await values('inspect', `${root}/`)).toEqual([`${root}/adapters/`, `${root}/models/`]);
    expect(await values('inspect', `${root}/.h`)).toEqual([`${root}/.hidden`]);
    expect(await values('inspect', under('nowhere/'))).toEqual([]);
  });

  it('reads ~ as a shell does', () => {
    const visible = completePath(`${homedir()}/`, 'file').map(({ value }) => value.slice(homedir().length));
    expect(completePath('~/', 'file').map(({ value }) => value.slice(1))).toEqual(visible);
  });

  it('is printed for scripts: the kind, then a candidate a line', async () => {
    expect(await runCli(['complete', 'completion', 'z'])).toEqual({ code: 0, stdout: 'words\nzsh\n', stderr: '' });
    expect((await runCli(['complete', 'ins'])).stdout).toBe(`words\ninspect\t${COMMANDS.inspect!.summary}\n`);
  });
});

/** A shell that shows it reads keys. */
const PROMPT = 'ready> ';

const has = (program: string) => spawnSync(program, ['--version']).status === 0;
const needs = (...programs: string[]) => {
  const missing = programs.filter((program) => !has(program));
  return missing.length > 0 ? `needs ${missing.join(', ')}` : '';
};

describe('the scripts in their shells', () => {
  let built: BuiltCli;
  let home: string;
  beforeAll(async () => {
    built = await buildCli('completion');
    writeFileSync(join(built.folder, 'openlora'), `#!/bin/sh\nexec '${process.execPath}' '${built.script}' "$@"\n`, {
      mode: 0o755,
    });
  });
  afterAll(() => rmSync(built.folder, { recursive: true, force: true }));
  beforeEach(() => {
    home = mkdtempSync(join(tmpdir(), 'openlora-home-'));
  });

  afterEach(() => rmSync(home, { recursive: true }));

  const env = () => ({
    PATH: `${built.folder}:${process.env.PATH}`,
    HOME: home,
    TERM: 'xterm',
    // Else zsh takes the editor's keys.
    EDITOR: 'emacs',
  });

  /**
   * Types `keys` (⇥ is Tab) at the prompt of a shell on a terminal, then has the shell print the words of the line: what
   * a program would be given.
   */
  async function typed(shell: string, setup: string, keys: string): Promise<string[]> {
    const out = join(home, 'words');
    const child = spawn('script', ['-qfec', shell, '/dev/null'], { cwd: root, env: env(), stdio: 'pipe' });
    const ended = new Promise((resolve) => child.on('close', resolve));
    let shown = '';
    const ready = new Promise<void>((resolve) => {
      child.stdout.on('data', (chunk: Buffer) => {
        shown += chunk.toString();
        if (shown.includes(PROMPT)) resolve();
      });
    });
    // Not as it will be shown: the terminal echoes what is typed.
    child.stdin.write(`${setup}; PS1='${PROMPT.slice(0, 2)}''${PROMPT.slice(2)}'\n`);
    await ready;
    const [toStart, toEnd] = ['\u0001', '\u0005'];
    child.stdin.write(`${keys.replaceAll('⇥', '\t')}${toStart}printf '%s\\n' ${toEnd} > '${out}'\nexit\n`);
    await ended;
    return existsSync(out) ? readFileSync(out, 'utf8').trimEnd().split('\n') : [`nothing; the terminal: ${shown}`];
  }

  const cases: [keys: string, words: string[]][] = [
    ['openlora insp⇥adapters/te⇥ --ba⇥models/ll⇥', ['openlora', 'inspect', 'adapters/terse', '--base', 'models/llama']],
    ['openlora chat --dtype=b⇥', ['openlora', 'chat', '--dtype=bf16']],
    ['openlora chat --simd sc⇥', ['openlora', 'chat', '--simd', 'scalar']],
    ['openlora chat --adapter t=adapters/te⇥', ['openlora', 'chat', '--adapter', 't=adapters/terse']],
    ['openlora chat --adapter adapters/mo⇥de⇥', ['openlora', 'chat', '--adapter', 'adapters/more/deep']],
    ['openlora chat --base models/my⇥', ['openlora', 'chat', '--base', 'models/my base']],
    ['openlora completion f⇥', ['openlora', 'completion', 'fish']],
  ];
  const withoutSlash = (words: string[]) => words.map((word) => word.replace(/\/$/, ''));

  const noBash = needs('bash', 'script');
  it.skipIf(noBash)(`bash ${noBash}`, { timeout: 60_000 }, async () => {
    for (const [keys, words] of cases) {
      const setup = 'eval "$(openlora completion bash)"';
      expect(withoutSlash(await typed('bash --norc --noprofile -i', setup, keys))).toEqual(words);
    }
  });

  const noZsh = needs('zsh', 'script');
  it.skipIf(noZsh)(`zsh ${noZsh}`, { timeout: 60_000 }, async () => {
    for (const [keys, words] of cases) {
      const setup = 'autoload -U compinit; compinit -u; eval "$(openlora completion zsh)"';
      // Readline ends every folder with a slash; zsh sets the space after one that is meant.
      const tight = keys.replace('te⇥ --', 'te⇥--');
      expect(withoutSlash(await typed('zsh -f -i', setup, tight))).toEqual(words);
    }
  });

  const noFish = needs('fish');
  it.skipIf(noFish)(`fish ${noFish}`, { timeout: 60_000 }, () => {
    const complete = (line: string) => {
      const script = `openlora completion fish | source; complete -C ${JSON.stringify(line)}`;
      const { stdout, stderr } = spawnSync('fish', ['--no-config', '-c', script], {
        cwd: root,
        env: env(),
        encoding: 'utf8',
      });
      expect(stderr).toBe('');
      return stdout
        .split('\n')
        .filter((text) => text !== '')
        .map((text) => text.split('\t')[0]);
    };
    expect(complete('openlora insp')).toEqual(['inspect']);
    expect(complete('openlora chat --dtype=b')).toEqual(['--dtype=bf16']);
    expect(complete('openlora inspect adapters/te')).toEqual(['adapters/terse']);
    expect(complete('openlora chat --adapter t=adapters/te')).toEqual(['t=adapters/terse']);
    expect(complete('openlora chat --base "models/my')).toEqual(['models/my base']);
    expect(complete(String.raw`openlora chat --base models/my\ b`)).toEqual(['models/my base']);
  });
});
