// `openlora demo-memory` (hidden): a fresh process that loads, says how much memory that took, and ends.

import type { Base } from '../../index.js';
import { defineCommand } from '../command.js';
import { json } from '../io.js';
import { adapterFolder, readFamily } from './tasks.js';

export interface MemorySample {
  /** Resident set of the process before the first load, and after each load. */
  rssBytes: number[];
  /** From `stats()` of every base that is loaded. */
  weightBytes: number;
  adapterBytes: number;
}

export const demoMemory = defineCommand({
  name: 'demo-memory',
  summary: 'measure what the demo family takes',
  usage: '--mode shared|copies --folder DIR',
  options: {
    mode: {
      kind: 'text',
      value: 'MODE',
      choices: ['shared', 'copies'],
      summary: 'one base with every adapter, or one full model for each',
    },
    folder: { kind: 'text', value: 'DIR', summary: 'of the demo' },
    threads: { kind: 'integer', value: 'N', min: 1, summary: 'of each engine' },
  },
  examples: [],
  async run({ options, io }) {
    const { loadBase } = await import('../../index.js');
    const family = readFamily(options.folder ?? '');
    const threads = options.threads === undefined ? {} : { threads: options.threads };
    const load = () => loadBase({ path: family.base, signal: io.signal, ...threads });
    const bases: Base[] = [];
    const rssBytes = [await settledRss()];
    if (options.mode === 'copies') {
      for (const { examples } of family.adapters) {
        const base = await load();
        bases.push(base);
        // Weights count once they have been touched.
        await base.generate({ prompt: examples[0]!.prompt, maxTokens: 4 }).result;
        rssBytes.push(await settledRss());
      }
    } else {
      const base = await load();
      bases.push(base);
      for (const { name } of family.adapters) await base.registerAdapter(name, adapterFolder(family, name));
      await Promise.all(
        family.adapters.map(
          ({ name, examples }) => base.generate({ prompt: examples[0]!.prompt, adapter: name, maxTokens: 4 }).result,
        ),
      );
      rssBytes.push(await settledRss());
    }
    const sum = (of: (base: Base) => number) => bases.reduce((total, base) => total + of(base), 0);
    const sample: MemorySample = {
      rssBytes,
      weightBytes: sum((base) => base.stats().bytes.base),
      adapterBytes: sum((base) => base.stats().bytes.adapters),
    };
    json(io, sample);
    await Promise.all(bases.map((base) => base.dispose()));
    return 0;
  },
});

/** After collecting garbage, twice: finalizers run in between. */
async function settledRss(): Promise<number> {
  for (let i = 0; i < 2; i++) {
    (globalThis as { gc?: () => void }).gc?.();
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  return process.memoryUsage.rss();
}
