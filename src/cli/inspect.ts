// `openlora inspect`: what a folder holds, read as the SDK reads it; nothing is loaded.

import { existsSync } from 'node:fs';
import { readFile, readdir, stat } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { requireFolder } from './base-options.js';
import { defineCommand } from './command.js';
import { CliError, EXIT_FAILURE, EXIT_OK, UsageError } from './errors.js';
import { json, type Io } from './io.js';
import { quoted } from './hints.js';
import { printAdapter, printBase, type AdapterReport } from './inspect-view.js';
import { completePath } from './paths.js';
import { shortPath } from './text.js';

export const inspect = defineCommand({
  name: 'inspect',
  summary: 'say what is in a base or an adapter folder, and whether it fits',
  usage: 'DIR [--base DIR]',
  details:
    'Reads configs and tensor headers only. With --base, an adapter is checked against that base; exit code 1 if it does not fit.',
  positionals: [{ name: 'DIR', path: 'model' }],
  options: { base: { kind: 'text', value: 'DIR', path: 'base', short: 'b', summary: 'base that the adapter is for' } },
  examples: ['openlora inspect ./llama', 'openlora inspect ./my-adapter --base ./llama'],
  async run({ options, positionals, io }) {
    const [given] = positionals;
    const folder = resolve(requireFolder('DIR', given));
    if (await isAdapter(folder)) {
      const report = await describeAdapter(
        folder,
        options.base === undefined ? undefined : requireFolder('--base', options.base),
        io,
      );
      if (options.json) json(io, report);
      else printAdapter(report, io);
      return report.fit && !report.fit.fits ? EXIT_FAILURE : EXIT_OK;
    }
    if (options.base !== undefined)
      throw new UsageError(`--base is for adapters, and ${given} is a base`, `openlora inspect ${given}`);
    const report = await (await import('../index.js')).inspectBase(folder, { signal: io.signal });
    if (options.json) json(io, report);
    else printBase(report, io);
    return EXIT_OK;
  },
});

async function isAdapter(folder: string): Promise<boolean> {
  if (existsSync(join(folder, 'adapter_config.json'))) return true;
  if (existsSync(join(folder, 'config.json'))) return false;
  if (!(await stat(folder)).isDirectory()) {
    const around = `openlora inspect ${quoted(shortPath(dirname(folder)))}`;
    throw new CliError('ERR_NOT_A_FOLDER', `${folder} is a file, wanted a folder`, around);
  }
  const names = (await readdir(folder)).slice(0, 5).join(', ') || 'nothing';
  const inside = completePath(`${folder}/`, 'model').find(({ summary }) => summary !== undefined);
  throw new CliError(
    'ERR_NOT_A_MODEL',
    `${folder} has ${names}; wanted config.json (a base) or adapter_config.json (an adapter)`,
    inside && `openlora inspect ${quoted(shortPath(inside.value))}`,
  );
}

async function describeAdapter(path: string, basePath: string | undefined, io: Io): Promise<AdapterReport> {
  const { inspectAdapter } = await import('../index.js');
  const base = basePath === undefined ? {} : { base: resolve(basePath) };
  const inspected = await inspectAdapter(path, { ...base, signal: io.signal });
  const text = await readFile(join(path, 'adapter_config.json'), 'utf8');
  const { lora_alpha: alpha, use_rslora } = JSON.parse(text.replace(/^\uFEFF/, '')) as {
    lora_alpha?: unknown;
    use_rslora?: unknown;
  };
  return {
    ...inspected,
    path,
    ...base,
    alpha: typeof alpha === 'number' ? alpha : undefined,
    isRankStabilised: use_rslora === true,
  };
}
