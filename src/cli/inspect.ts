// `openlora inspect`: what a folder holds, read as the SDK reads it; nothing is loaded.

import { existsSync } from 'node:fs';
import { readFile, readdir, stat } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { OpenLoraError } from '../errors.js';
import { describeAdapterFolder, readAdapterFolder, readBaseFolder } from '../formats/index.js';
import { takePositionals } from './args.js';
import { requireFolder } from './base-options.js';
import { defineCommand } from './command.js';
import { CliError, EXIT_FAILURE, EXIT_OK, UsageError } from './errors.js';
import { describeBase, type BaseReport } from './inspect-base.js';
import { json, type Io } from './io.js';
import { formatBytes, formatCount, formatShort, table } from './text.js';

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
    const report = await describeBase(folder, io.signal);
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

interface Fit {
  base: string;
  fits: boolean;
  error?: { code: string; message: string };
}

interface AdapterReport {
  kind: 'adapter';
  path: string;
  rank: { min: number; max: number };
  /** Factors on B·A: those of the sites where a base was given, else what the config says. */
  scale: { values: number[]; alpha: number | undefined; isRankStabilised: boolean };
  sites: string[];
  parameters: number;
  bytes: number;
  baseNameOrPath: string | undefined;
  hasChatTemplate: boolean;
  warnings: { code: string; message: string }[];
  fit?: Fit;
}

async function describeAdapter(path: string, basePath: string | undefined, io: Io): Promise<AdapterReport> {
  const described = await describeAdapterFolder(path, { signal: io.signal });
  const config = JSON.parse(await readFile(join(path, 'adapter_config.json'), 'utf8')) as {
    r?: unknown;
    lora_alpha?: unknown;
    use_rslora?: unknown;
  };
  const report: AdapterReport = {
    kind: 'adapter',
    path,
    rank: described.rank,
    scale: scaleOf(config),
    sites: described.sites,
    parameters: described.parameters,
    bytes: described.bytes,
    baseNameOrPath: described.baseNameOrPath,
    hasChatTemplate: described.chatTemplate !== undefined,
    warnings: described.warnings,
  };
  if (basePath === undefined) return report;
  const base = await readBaseFolder(resolve(basePath), { signal: io.signal });
  try {
    const { spec, info } = await readAdapterFolder(path, base, { signal: io.signal });
    const values = [...new Set(spec.sites.map(({ scale }) => scale))].sort((a, b) => a - b);
    return {
      ...report,
      scale: { ...report.scale, values },
      warnings: info.warnings,
      fit: { base: base.path, fits: true },
    };
  } catch (error) {
    if (!OpenLoraError.is(error)) throw error;
    return { ...report, fit: { base: base.path, fits: false, error: { code: error.code, message: error.message } } };
  }
}

function scaleOf(config: { r?: unknown; lora_alpha?: unknown; use_rslora?: unknown }): AdapterReport['scale'] {
  const isRankStabilised = config.use_rslora === true;
  const alpha = typeof config.lora_alpha === 'number' ? config.lora_alpha : undefined;
  const rank = typeof config.r === 'number' ? config.r : undefined;
  const values = alpha !== undefined && rank ? [alpha / (isRankStabilised ? Math.sqrt(rank) : rank)] : [];
  return { values, alpha, isRankStabilised };
}

/** `model.layers.*.self_attn.q_proj × 4`, in the order in which they come. */
export function groupSites(names: readonly string[]): { name: string; count: number }[] {
  const counts = new Map<string, number>();
  for (const name of names) {
    const group = name.replace(/\.\d+\./, '.*.');
    counts.set(group, (counts.get(group) ?? 0) + 1);
  }
  return [...counts].map(([name, count]) => ({ name, count }));
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
  const range = (low: number, high: number) => (low === high ? `${low}` : `${low} to ${high}`);
  const { values, alpha, isRankStabilised } = report.scale;
  const round = (value: number) => Number(value.toPrecision(4));
  const scale = values.length > 0 ? range(round(values[0]!), round(values.at(-1)!)) : 'unknown';
  fields(io, 'adapter', report.path, [
    ['rank', range(report.rank.min, report.rank.max)],
    ['scale', `${scale}${alpha === undefined ? '' : ` (alpha ${round(alpha)}${isRankStabilised ? ', rsLoRA' : ''})`}`],
    ['parameters', `${formatShort(report.parameters)} (${formatCount(report.parameters)})`],
    ['bytes', `${formatBytes(report.bytes)} as saved`],
    ['made for', report.baseNameOrPath ?? 'it does not say'],
    ['chat template', report.hasChatTemplate ? 'its own' : "the base's"],
    ['sites', `${report.sites.length}`],
  ]);
  for (const { name, count } of groupSites(report.sites))
    stdout.line(`    ${name}${count > 1 ? style.dim(` × ${count}`) : ''}`);
  for (const { code, message } of report.warnings)
    stdout.line(`${style.yellow('warning:')} ${message} ${style.dim(`[${code}]`)}`);
  if (!report.fit) return;
  if (report.fit.fits) stdout.line(`${style.green('✓ fits')} ${report.fit.base}`);
  else
    stdout.line(
      `${style.red('✗ does not fit')} ${report.fit.base}: ${report.fit.error!.message} ${style.dim(`[${report.fit.error!.code}]`)}`,
    );
}

function printBase(report: BaseReport, io: Io): void {
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
  stdout.line(`  ${stdout.style.dim('sites')} ${report.sites.reduce((sum, { count }) => sum + count, 0)}`);
  const rows = report.sites.map(({ name, count, in: width, out }) => [
    `    ${name}`,
    formatCount(width),
    formatCount(out),
    `× ${count}`,
  ]);
  const columns = [
    { title: '    module' },
    ...['in', 'out', 'layers'].map((title) => ({ title, align: 'right' as const })),
  ];
  for (const line of table(columns, rows, stdout.style.dim)) stdout.line(line);
}
