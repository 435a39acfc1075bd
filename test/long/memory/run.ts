// What memory.test.ts measures; bundled, and run in a process of its own. Arguments: the base's folder and a dtype. Prints
// JSON: by how much the resident set grew, its peak, and what stats() says.

import { readFileSync } from 'node:fs';
import { loadBase, type LoadBaseOptions } from '../../../src/index.js';

/** Of this process, in bytes. */
function resident(): { now: number; peak: number } {
  const status = readFileSync('/proc/self/status', 'utf8');
  const bytes = (key: string) => Number(new RegExp(`^${key}:\\s+(\\d+) kB`, 'm').exec(status)![1]) * 1024;
  return { now: bytes('VmRSS'), peak: bytes('VmHWM') };
}

const [path, dtype] = process.argv.slice(2) as [string, NonNullable<LoadBaseOptions['dtype']>];
const before = resident();
const base = await loadBase({ path, dtype, limits: { deviceMemory: '256MiB', maxContext: 2048 } });
await base.generate({ prompt: 'hello', maxTokens: 4, ignoreEos: true }).result;
const after = resident();
const { bytes } = base.stats();
const measured = { growth: after.now - before.now, peak: after.peak - before.now, bytes };
await base.dispose();
process.stdout.write(JSON.stringify(measured));
