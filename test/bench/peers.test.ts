// bench/peers as a whole without its peers, which aren't installed here: openlora in rounds and processes of its own.

import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { PeersReport } from '../../bench/peers/main.js';
import { readSettings } from '../../bench/peers/settings.js';
import { factLines } from '../../bench/peers/view.js';
import { nameOf } from '../../bench/peers/work.js';
import { missingForAddon } from '../cli/addon-family.js';

const missing = missingForAddon();
const root = fileURLToPath(new URL('../../', import.meta.url));
const run = (...args: string[]) =>
  spawnSync(process.execPath, [join(root, 'bench/peers/run.mjs'), ...args], { encoding: 'utf8' });

describe.skipIf(missing)(`bench/peers without peers ${missing}`, { timeout: 120_000 }, () => {
  let folder: string;
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'openlora-peers-test-'));
  });
  afterAll(() => rmSync(folder, { recursive: true }));

  it('measures every row of openlora in each round and leaves nothing but its results', () => {
    const [json, html, weights] = [join(folder, 'out.json'), join(folder, 'out.html'), folder];
    const words = ['--quick', '--llama', 'none', '--ours', 'bf16-dot,int8', '--json', json, '--html', html];
    const { status, stdout, stderr } = run(...words, '--folder', weights);
    expect(stderr).toContain('round 2 of 2: openlora bf16-dot');
    expect(stderr).toContain('peft bf16 left out: no --python was given');
    expect(status).toBe(0);
    const report = JSON.parse(readFileSync(json, 'utf8')) as PeersReport;
    expect(report).toMatchObject({ schema: 'openlora-peers/1', isQuick: true, ratios: [] });
    const speeds = report.lines.filter(({ unit }) => unit === 'tokens/s');
    expect(speeds.map(({ name }) => name)).toEqual(
      ['int8', 'bf16-dot'].flatMap((format) => [
        `decode, batch 1, context 16, openlora ${format}`,
        `decode, batch 4, context 16, openlora ${format}`,
        `prefill of 64, openlora ${format}`,
        `2 requests, 2 adapters, 16 + 4 tokens, openlora ${format}, in one batch`,
      ]),
    );
    for (const { name, low, samples } of report.lines) {
      expect(low, name).toBeGreaterThan(0);
      expect(samples, name).toBe(2);
    }
    // Before each of the four processes, and at the end.
    expect(report.limits.find(({ name }) => name === 'read')!.samples).toBe(5);
    expect(report.facts['openlora int8']).toMatchObject({ kv: 'bf16', threads: report.machine.threads });
    expect(stdout).toContain('decode, batch 4, context 16, openlora int8');
    expect(readFileSync(html, 'utf8')).toContain('openlora beside its peers');
    expect(readdirSync(folder).sort()).toEqual(['out.html', 'out.json']);
  });

  it('says what is wrong with its options, and removes its bundles', () => {
    const { status, stderr } = run('--llama', 'none', '--ours', 'int9');
    expect(status).toBe(1);
    expect(stderr).toContain("--ours is 'int9', wanted some of int8, int4, bf16-dot, bf16, f32, f16, or none");
    const modules = join(root, 'bench/peers/node_modules');
    const left = existsSync(modules) ? readdirSync(modules).filter((name) => name.startsWith('.openlora-')) : [];
    expect(left.filter((name) => !existsSync(`/proc/${name.split('-')[1]}`))).toEqual([]);
  });
});

describe('the options of bench/peers', () => {
  it('are those of a full run unless something else is said', () => {
    const { sizes, rounds, contestants, threads } = readSettings([]);
    expect(sizes).toMatchObject({ model: 'qwen2.5-0.5b', batches: [1, 8, 32], context: 64, prompt: 512, adapters: 8 });
    expect({ rank: sizes.rank, rounds, threads }).toEqual({ rank: 16, rounds: 5, threads: 0 });
    const names = contestants.map(nameOf);
    expect(names.filter((name) => name.startsWith('openlora')).length).toBe(5);
    expect(names.filter((name) => name.startsWith('llama.cpp')).length).toBe(5);
    // By turns: what is compared most closely is neighbours.
    expect(names.indexOf('llama.cpp q8_0')).toBe(names.indexOf('openlora int8') + 1);
    expect(names.indexOf('llama.cpp q4_0')).toBe(names.indexOf('openlora int4') + 1);
    expect(names.indexOf('llama.cpp bf16')).toBe(names.indexOf('openlora bf16-dot') + 1);
    expect(names.indexOf('openlora bf16')).toBe(names.indexOf('llama.cpp bf16') + 1);
  });

  it('choose contestants', () => {
    const { contestants } = readSettings(['--ours', 'int8', '--llama', 'q8_0,f16', '--peft', 'none']);
    expect(contestants.map(nameOf)).toEqual(['openlora int8', 'llama.cpp q8_0', 'llama.cpp f16']);
  });

  it.each([
    [['--model', 'gpt'], "--model is 'gpt', wanted one of qwen2.5-0.5b, tinyllama, demo, tiny"],
    [['--batch', '1,x'], "--batch is 'x', wanted an integer from 1"],
    [['--rounds', '0'], "--rounds is '0', wanted an integer from 1"],
    [['--llama', 'q5'], "--llama is 'q5', wanted some of q8_0, q4_0, bf16, f16, q4_k_m, or none"],
    [['--fast'], "Unknown option '--fast'"],
  ])('%j is refused', (args, message) => {
    expect(() => readSettings(args)).toThrow(message);
  });
});

it('facts that all formats of an engine share are said once', () => {
  const facts = {
    'llama.cpp q8_0': { threads: 2, backend: 'zen4', buffers: 'a' },
    'llama.cpp f16': { threads: 2, backend: 'zen4', buffers: 'b' },
    'peft f32': { threads: 2 },
  };
  expect(factLines(facts)).toEqual([
    'llama.cpp: threads 2; backend zen4',
    'llama.cpp q8_0: buffers a',
    'llama.cpp f16: buffers b',
    'peft: threads 2',
  ]);
});
