// `openlora inspect`: what a folder holds, read as the SDK reads it; nothing is loaded.

import { existsSync } from 'node:fs';
import { readFile, readdir, stat } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import type { InspectedAdapter, InspectedBase, InspectedError } from '../index.js';
import { takePositionals } from './args.js';
import { requireFolder } from './base-options.js';
import { defineCommand } from './command.js';
import { CliError, EXIT_FAILURE, EXIT_OK, UsageError } from './errors.js';
import { json, type Io } from './io.js';
import { formatBytes, formatCount, formatShort, oneLine, table } from './text.js';

export const inspect = defineCommand({
  name: 'inspect',
  summary: 'say what is in a base or an adapter folder, and whether it fits',
  usage: 'DIR [--base DIR]',
  details:
    'Reads configs and tensor headers only. With --base, an adapter is checked against that base; exit code 1 if it does not fit.',
  options: { base: { kind: 'text', value: 'DIR', short: 'b', summary: 'base that the adapter is for' } },
  examples: ['openlora inspect ./llama', 'openlora inspect ./my-adapter --base ./llama'],
  async run({ options, positionals, io }) {
    const [given] = takePositionals(positionals, ['DIR']);
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
  if (!(await stat(folder)).isDirectory())
    throw new CliError('ERR_NOT_A_FOLDER', `${folder} is a file, wanted a folder`, 'the folder that holds it');
  const names = (await readdir(folder)).slice(0, 5).join(', ') || 'nothing';
  throw new CliError(
    'ERR_NOT_A_MODEL',
    `${folder} has ${names}; wanted config.json (a base) or adapter_config.json (an adapter)`,
    'the folder that holds one of them',
  );
}

/** What the SDK says, and what the config says of the scale. */
interface AdapterReport extends InspectedAdapter {
  path: string;
  /** That it was checked against. */
  base?: string;
  alpha: number | undefined;
  isRankStabilised: boolean;
}

async function describeAdapter(path: string, basePath: string | undefined, io: Io): Promise<AdapterReport> {
  const { inspectAdapter } = await import('../index.js');
  const base = basePath === undefined ? {} : { base: resolve(basePath) };
  const inspected = await inspectAdapter(path, { ...base, signal: io.signal });
  const text = await readFile(join(path, 'adapter_config.json'), 'utf8');
  const { lora_alpha: alpha, use_rslora } = JSON.parse(text.replace(/^\uFEFF/, '')) as { lora_alpha?: unknown; use_rslora?: unknown };
  return {
    ...inspected,
    path,
    ...base,
    alpha: typeof alpha === 'number' ? alpha : undefined,
    isRankStabilised: use_rslora === true,
  };
}

/** `model.layers.*.self_attn.q_proj × 4`, in the order in which they come. */
export function groupSites<T extends { name: string }>(sites: readonly T[]): (T & { count: number })[] {
  const groups = new Map<string, T & { count: number }>();
  for (const site of sites) {
    const name = site.name.replace(/\.\d+\./, '.*.');
    const group = groups.get(name);
    if (group) group.count++;
    else groups.set(name, { ...site, name, count: 1 });
  }
  return [...groups.values()];
}

function fields(io: Io, title: string, path: string, rows: [string, string][]): void {
  const { stdout } = io;
  stdout.line(`${stdout.style.bold(title)} ${path}`);
  const width = Math.max(...rows.map(([name]) => name.length)) + 2;
  for (const [name, value] of rows) stdout.line(`  ${stdout.style.dim(name.padEnd(width))}${value}`);
}

function printAdapter(report: AdapterReport, io: Io): void {
  const { stdout } = io;
  const { style } = stdout;
  const range = (low: number, high: number): string => (low === high ? `${low}` : `${low} to ${high}`);
  const round = (value: number) => Number(value.toPrecision(4));
  const config = `alpha ${report.alpha === undefined ? 'not given' : round(report.alpha)}${report.isRankStabilised ? ', rsLoRA' : ''}`;
  const scales = report.fit?.fits ? report.fit.scales : undefined;
  const scale = scales?.length ? `${range(round(scales[0]!), round(scales.at(-1)!))} (${config})` : config;
  fields(io, 'adapter', report.path, [
    ['rank', range(report.rank.min, report.rank.max)],
    ['scale', scale],
    ['parameters', `${formatShort(report.parameters)} (${formatCount(report.parameters)})`],
    ['bytes', `${formatBytes(report.bytes)} as saved`],
    ['made for', report.baseNameOrPath === undefined ? 'it does not say' : oneLine(report.baseNameOrPath)],
    ['chat template', report.hasChatTemplate ? 'its own' : "the base's"],
    ['sites', `${report.sites.length}`],
  ]);
  for (const { name, count } of groupSites(report.sites.map((name) => ({ name })))) {
    stdout.line(`    ${oneLine(name)}${count > 1 ? style.dim(` × ${count}`) : ''}`);
  }
  const coded = ({ code, message }: InspectedError) => `${oneLine(message)} ${style.dim(`[${code}]`)}`;
  for (const warning of report.warnings) stdout.line(`${style.yellow('warning:')} ${coded(warning)}`);
  if (report.fit?.fits) stdout.line(`${style.green('✓ fits')} ${report.base}`);
  else if (report.fit) stdout.line(`${style.red('✗ does not fit')} ${report.base}: ${coded(report.fit.error)}`);
}

function printBase(report: InspectedBase, io: Io): void {
  const { stdout } = io;
  const { tokenizer } = report;
  const chat = tokenizer.hasChatTemplate ? 'with a chat template' : 'no chat template';
  fields(io, 'base', report.path, [
    ['family', report.family],
    ['parameters', `${formatShort(report.parameters)} (${formatCount(report.parameters)})`],
    [
      'layers',
      `${report.layers}, hidden ${report.hidden}, ${report.heads} heads of ${report.headDim} (${report.kvHeads} for keys and values), mlp ${report.intermediate}`,
    ],
    ['dtype', `${report.dtype}, ${formatBytes(report.bytes)}`],
    ['context', `${formatCount(report.contextLength)} tokens`],
    ['vocabulary', `${formatCount(report.vocabSize)}, head ${report.isTied ? 'tied to the embedding' : 'of its own'}`],
    [
      'tokenizer',
      tokenizer.error
        ? stdout.style.red(`${tokenizer.error.message} [${tokenizer.error.code}]`)
        : `${formatCount(tokenizer.tokens ?? 0)} tokens, ${chat}`,
    ],
    [
      'ends at',
      report.eosTokens.length > 0 ? `token ${report.eosTokens.join(', ')}` : 'no token: answers run to their limit',
    ],
    ['files', `${report.files.length}`],
  ]);
  for (const { name, bytes } of report.files) stdout.line(`    ${name}  ${stdout.style.dim(formatBytes(bytes))}`);
  stdout.line(`  ${stdout.style.dim('sites')} ${report.sites.length}`);
  const rows = groupSites(report.sites).map(({ name, count, in: width, out }) => [
    `    ${name}`,
    formatCount(width),
    formatCount(out),
    formatCount(count),
  ]);
  const columns = [
    { title: '    module' },
    ...['in', 'out', 'count'].map((title) => ({ title, align: 'right' as const })),
  ];
  for (const line of table(columns, rows, stdout.style.dim)) stdout.line(line);
}
