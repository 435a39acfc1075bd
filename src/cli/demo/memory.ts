// What one shared base holds against one full model per adapter: both loaded for real, each in a fresh process.

import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { Interrupted } from '../errors.js';
import { formatBytes } from '../text.js';
import type { MemorySample } from './memory-child.js';
import type { DemoFamily } from './tasks.js';

const MEASURE_MS = 300_000;

export interface MemorySide {
  /** Growth of the process's resident set: everything that came with the load, threads and tokenizers too. */
  rssGrowthBytes: number;
  /** Of weights and adapters alone, as the engine counts them. */
  modelBytes: number;
}

export interface MemoryComparison {
  /** One base with every adapter resident. */
  shared: MemorySide;
  /** One full model for each adapter. */
  copies: MemorySide & { count: number };
}

/** `undefined` where the command isn't run from the package's dist folder. */
export async function compareMemory(
  family: DemoFamily,
  threads: number | undefined,
  signal: AbortSignal,
): Promise<MemoryComparison | undefined> {
  const cli = fileURLToPath(new URL('./cli.js', import.meta.url));
  if (!existsSync(cli)) return undefined;
  const shared = await measure(cli, 'shared', family, threads, signal);
  const copies = await measure(cli, 'copies', family, threads, signal);
  return { shared: sideOf(shared), copies: { ...sideOf(copies), count: family.adapters.length } };
}

async function measure(
  cli: string,
  mode: 'shared' | 'copies',
  family: DemoFamily,
  threads: number | undefined,
  signal: AbortSignal,
): Promise<MemorySample> {
  const args = ['--expose-gc', cli, 'demo-memory', '--mode', mode, '--folder', family.folder];
  if (threads !== undefined) args.push('--threads', String(threads));
  try {
    const { stdout } = await promisify(execFile)(process.execPath, args, { signal, timeout: MEASURE_MS });
    return JSON.parse(stdout) as MemorySample;
  } catch (error) {
    if (signal.aborted) throw new Interrupted();
    throw error;
  }
}

function sideOf({ rssBytes, weightBytes, adapterBytes }: MemorySample): MemorySide {
  return { rssGrowthBytes: rssBytes.at(-1)! - rssBytes[0]!, modelBytes: weightBytes + adapterBytes };
}

export function memoryRows({ shared, copies }: MemoryComparison): string[][] {
  const times = (more: number, less: number) => `${(more / Math.max(1, less)).toFixed(1)} ×`;
  return [
    [`one base, ${copies.count} adapters`, formatBytes(shared.modelBytes), formatBytes(shared.rssGrowthBytes)],
    [`${copies.count} full models`, formatBytes(copies.modelBytes), formatBytes(copies.rssGrowthBytes)],
    ['', times(copies.modelBytes, shared.modelBytes), times(copies.rssGrowthBytes, shared.rssGrowthBytes)],
  ];
}
