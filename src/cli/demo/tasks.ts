// Which requests the demo makes: read from demo/tasks.json, with no knowledge of what the adapters do.

import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { packageRoot } from '../../native/package-root.js';
import { CliError } from '../errors.js';

export interface DemoExample {
  prompt: string;
  answer: string;
}

export interface DemoAdapter {
  name: string;
  title: string;
  /** Share of unseen inputs that transformers + peft answers right. */
  accuracy: number;
  examples: DemoExample[];
}

export interface DemoRequest {
  adapter: string;
  prompt: string;
  wanted: string;
}

export interface DemoFamily {
  folder: string;
  base: string;
  adapters: DemoAdapter[];
}

export function demoFolder(): string {
  return join(packageRoot(), 'demo');
}

export function readFamily(folder: string): DemoFamily {
  const path = join(folder, 'tasks.json');
  if (!existsSync(path)) {
    throw new CliError(
      'ERR_DEMO_MISSING',
      `${path} is not there: this installation has no demo family`,
      'npm install openlora',
    );
  }
  const { adapters } = JSON.parse(readFileSync(path, 'utf8')) as { adapters: DemoAdapter[] };
  return { folder, base: join(folder, 'base'), adapters };
}

export function adapterFolder(family: DemoFamily, name: string): string {
  return join(family.folder, 'adapters', name);
}

/** Share of the requests that ask several adapters the same. */
const SHARED_SHARE = 0.65;

/**
 * `count` requests, the same each time for the same `seed`: prompts that several adapters answer, each asked of all of
 * them, and between those the prompts that only one adapter has.
 */
export function chooseRequests(adapters: DemoAdapter[], count: number, seed: number): DemoRequest[] {
  const askedOf = new Map<string, DemoRequest[]>();
  for (const { name, examples } of adapters) {
    for (const { prompt, answer } of examples) {
      const requests = askedOf.get(prompt) ?? [];
      if (requests.some(({ adapter }) => adapter === name)) continue;
      requests.push({ adapter: name, prompt, wanted: answer });
      askedOf.set(prompt, requests);
    }
  }
  const most = Math.max(1, ...[...askedOf.values()].map((requests) => requests.length));
  const shared = [...askedOf.values()].filter((requests) => most > 1 && requests.length === most);
  const inShared = new Set(shared.flat().map(({ adapter }) => adapter));
  const own = adapters
    .filter(({ name }) => !inShared.has(name))
    .map(({ name, examples }) => examples.map(({ prompt, answer }) => ({ adapter: name, prompt, wanted: answer })));
  const room = own.length > 0 ? Math.max(1, Math.floor((count * SHARED_SHARE) / most)) : Math.ceil(count / most);
  const groups = shared.length === 0 ? 0 : room;
  const blocks = Array.from({ length: groups }, (_, i) => shared[(seed + i) % shared.length]!);
  const singles = roundRobin(own.length > 0 ? own : [...askedOf.values()], count - blocks.flat().length, seed);
  const perGap = Math.ceil(singles.length / Math.max(1, blocks.length));
  const mixed = blocks.flatMap((block, i) => [...block, ...singles.slice(i * perGap, (i + 1) * perGap)]);
  return (blocks.length > 0 ? mixed : singles).slice(0, count);
}

function roundRobin(lists: DemoRequest[][], count: number, seed: number): DemoRequest[] {
  const chosen: DemoRequest[] = [];
  const filled = lists.filter((list) => list.length > 0);
  for (let i = 0; chosen.length < count && filled.length > 0; i++) {
    const list = filled[i % filled.length]!;
    chosen.push(list[(seed + Math.floor(i / filled.length)) % list.length]!);
  }
  return chosen;
}

/** Three standard deviations below what transformers + peft gets right, each request being right with its adapter's share. */
export function expectedRight(requests: DemoRequest[], adapters: DemoAdapter[]): number {
  const accuracy = new Map(adapters.map((adapter) => [adapter.name, adapter.accuracy]));
  const shares = requests.map((request) => accuracy.get(request.adapter) ?? 0);
  const mean = shares.reduce((sum, share) => sum + share, 0);
  const variance = shares.reduce((sum, share) => sum + share * (1 - share), 0);
  return Math.max(0, Math.floor(mean - 3 * Math.sqrt(variance)));
}
