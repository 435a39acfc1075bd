// A demo family of random weights: the parity checkpoints, with so many end tokens that every answer ends soon.

import { cpSync, existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { loadNative } from '../../src/native/load.js';

const root = fileURLToPath(new URL('../../', import.meta.url));
export const PARITY = join(root, 'test/data/parity/llama-gqa');
export const PARITY_ADAPTERS = existsSync(PARITY) ? readdirSync(join(PARITY, 'adapters')) : [];

/** What is missing for tests that run the engine. */
export function missingForAddon(): string {
  if (!existsSync(PARITY)) return 'needs test/data/parity';
  try {
    loadNative();
    return '';
  } catch {
    return 'needs the addon: npm run build:native';
  }
}

export interface Family {
  folder: string;
  base: string;
  adapter(name: string): string;
  remove(): void;
}

export function makeFamily(): Family {
  const folder = mkdtempSync(join(tmpdir(), 'openlora-family-'));
  cpSync(PARITY, folder, { recursive: true });
  cpSync(PARITY, join(folder, 'base'), { recursive: true });
  const path = join(folder, 'base', 'generation_config.json');
  const { vocab_size } = JSON.parse(readFileSync(join(PARITY, 'config.json'), 'utf8')) as { vocab_size: number };
  const ends = Array.from({ length: Math.floor(vocab_size / 8) }, (_, i) => 8 * i + 5);
  for (const copy of [folder, join(folder, 'base')]) {
    const config = JSON.parse(readFileSync(join(PARITY, 'config.json'), 'utf8')) as object;
    writeFileSync(join(copy, 'config.json'), JSON.stringify({ ...config, _name_or_path: 'parity/llama-gqa' }));
  }
  writeFileSync(path, JSON.stringify({ eos_token_id: ends }));
  return {
    folder,
    base: join(folder, 'base'),
    adapter: (name) => join(folder, 'adapters', name),
    remove: () => rmSync(folder, { recursive: true }),
  };
}

/** Prompts that every adapter gets, and for each (adapter, prompt) the answer that is called right. */
export function writeTasks(
  family: Family,
  prompts: string[],
  answer: (adapter: string, prompt: string) => string,
): void {
  const adapters = PARITY_ADAPTERS.map((name) => ({
    name,
    title: `what ${name} says`,
    accuracy: 1,
    examples: prompts.map((prompt) => ({ prompt, answer: answer(name, prompt) })),
  }));
  writeFileSync(join(family.folder, 'tasks.json'), JSON.stringify({ adapters }));
}
