// What demo/ promises of itself: how often its adapters are right, what they are made of, and its size.

import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import { readAdapterFolder, readBaseFolder } from '../../src/formats/index.js';

interface Task {
  name: string;
  group: string;
  rank: number;
  sites: string[];
  rslora: boolean;
  accuracy: number;
  base_accuracy: number;
  n: number;
  examples: { prompt: string; answer: string }[];
}
interface Score {
  correct: number;
  base_correct: number;
  n: number;
}

const demo = fileURLToPath(new URL('../../demo/', import.meta.url));
const read = (name: string): unknown => JSON.parse(readFileSync(join(demo, name), 'utf8'));
const { adapters: tasks } = read('tasks.json') as { adapters: Task[] };
const scores = (read('eval.json') as { adapters: Record<string, Score> }).adapters;
const folders = readdirSync(join(demo, 'adapters'));

/** As Python's zlib has it. */
function crc32(text: string): number {
  let crc = 0xffffffff;
  for (const byte of Buffer.from(text)) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc >>> 0;
}

it('holds twelve adapters: eight answer the same prompts, four have prompts of their own', () => {
  const names = tasks.map(({ name }) => name);
  expect(names).toHaveLength(12);
  expect(new Set(names)).toEqual(new Set(folders));
  expect(new Set(names)).toEqual(new Set(Object.keys(scores)));
  const groups = tasks.map(({ group }) => group);
  expect(groups.filter((group) => group === 'word')).toHaveLength(8);
  expect(groups.filter((group) => group === 'tenant')).toHaveLength(4);
  const words = new Set(
    tasks.filter(({ group }) => group === 'word').map(({ examples }) => String(examples.map(({ prompt }) => prompt))),
  );
  expect(words.size).toBe(1);
});

it.each(tasks)('$name is right for 98 of 100 unseen inputs, where the base alone is for 10 at most', (task) => {
  const { correct, base_correct, n } = scores[task.name]!;
  expect(n).toBeGreaterThanOrEqual(1000);
  expect(correct / n).toBeGreaterThanOrEqual(0.98);
  expect(base_correct / n).toBeLessThanOrEqual(0.1);
  expect([task.n, task.accuracy, task.base_accuracy]).toEqual([n, correct / n, base_correct / n]);
  expect(task.examples.length).toBeGreaterThanOrEqual(64);
  for (const { prompt } of task.examples) expect(crc32(prompt) % 10, prompt).toBe(0);
});

it('was trained by peft, with ranks 2 to 32, mixed sites, rsLoRA, head and embedding', async () => {
  const base = await readBaseFolder(join(demo, 'base'));
  const sites = new Set<string>();
  for (const { name, rank, sites: targets, rslora } of tasks) {
    const config = read(`adapters/${name}/adapter_config.json`) as Record<string, unknown>;
    expect(config).toMatchObject({ r: rank, target_modules: targets, use_rslora: rslora, peft_type: 'LORA' });
    expect(config.peft_version).toMatch(/^\d/);
    const { info } = await readAdapterFolder(join(demo, 'adapters', name), base);
    expect(info.rank).toEqual({ min: rank, max: rank });
    sites.add(String(targets));
    const last = new Set(info.sites.map((site) => site.split('.').at(-1)));
    expect(last).toEqual(new Set(targets));
  }
  const ranks = tasks.map(({ rank }) => rank);
  expect([Math.min(...ranks), Math.max(...ranks)]).toEqual([2, 32]);
  expect(sites.size).toBeGreaterThanOrEqual(4);
  expect(new Set(tasks.map(({ rslora }) => rslora))).toEqual(new Set([true, false]));
  const targeted = new Set(tasks.flatMap((task) => task.sites));
  for (const site of ['lm_head', 'embed_tokens', 'q_proj', 'down_proj']) expect(targeted).toContain(site);
});

it('takes 12 MB at the most', () => {
  const files = readdirSync(demo, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  const bytes = files.reduce((sum, { parentPath, name }) => sum + statSync(join(parentPath, name)).size, 0);
  expect(bytes).toBeGreaterThan(1e6);
  expect(bytes).toBeLessThanOrEqual(12e6);
});
