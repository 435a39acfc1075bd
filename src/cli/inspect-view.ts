// What `openlora inspect` prints: one screen for a base, and one for an adapter that fits.

import type { InspectedAdapter, InspectedBase, InspectedError } from '../index.js';
import type { Io } from './io.js';
import { printMisfit } from './misfit-view.js';
import { cut, formatBytes, formatCount, formatShort, oneLine, shortPath, table, widthOf, wrap } from './text.js';

/** What the SDK says, and what the config says of the scale. */
export interface AdapterReport extends InspectedAdapter {
  path: string;
  /** That it was checked against. */
  base?: string;
  alpha: number | undefined;
  isRankStabilised: boolean;
}

/** Columns of a name that a config gives. */
const NAME_MAX = 120;

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

/** Values go on in further lines where they are longer than the terminal is wide. Returns how many rows it took. */
function fields(io: Io, title: string, path: string, rows: [string, string][]): number {
  const { stdout } = io;
  const heading = `${title} ${shortPath(path)}`;
  stdout.line(`${stdout.style.bold(title)}${heading.slice(title.length)}`);
  let taken = Math.ceil(widthOf(heading) / stdout.columns);
  const width = Math.max(...rows.map(([name]) => name.length)) + 4;
  for (const [name, value] of rows) {
    const lines = wrap(value, Math.max(40, Math.min(stdout.columns, 120) - width));
    taken += lines.length;
    lines.forEach((line, i) => {
      const label = `  ${i === 0 ? name : ''}`.padEnd(width);
      stdout.line(`${stdout.style.dim(label)}${line}`);
    });
  }
  return taken;
}

export function printAdapter(report: AdapterReport, io: Io): void {
  const { stdout } = io;
  const { style } = stdout;
  const { fit } = report;
  const range = (low: number, high: number): string => (low === high ? `${low}` : `${low} to ${high}`);
  const round = (value: number) => Number(value.toPrecision(4));
  const config = `alpha ${report.alpha === undefined ? 'not given' : round(report.alpha)}${report.isRankStabilised ? ', rsLoRA' : ''}`;
  const scales = fit?.fits ? fit.scales : [];
  const scale = scales.length > 0 ? `scale ${range(round(scales[0]!), round(scales.at(-1)!))} (${config})` : config;
  const sites = groupSites(report.sites.map((name) => ({ name })));
  const taken = fields(io, 'adapter', report.path, [
    ['lora', `rank ${range(report.rank.min, report.rank.max)}, ${scale}`],
    ['size', `${formatShort(report.parameters)} parameters, ${formatBytes(report.bytes)} as saved`],
    [
      'made for',
      report.baseNameOrPath === undefined ? 'it does not say' : cut(oneLine(report.baseNameOrPath), NAME_MAX),
    ],
    ...(fit && !fit.fits
      ? []
      : ([
          ['chat', report.hasChatTemplate ? 'a template of its own' : "the base's template"],
          ['sites', `${report.sites.length}`],
        ] as [string, string][])),
  ]);
  if (fit && !fit.fits) return printMisfit(report, fit, io, taken);
  for (const { name, count } of sites) stdout.line(`    ${oneLine(name)}${count > 1 ? style.dim(` × ${count}`) : ''}`);
  printWarnings(report.warnings, io);
  if (fit) stdout.line(`${style.green('✓ fits')} ${shortPath(report.base!)}`);
}

function printWarnings(warnings: readonly InspectedError[], { stdout }: Io): void {
  const { style } = stdout;
  for (const { code, message } of warnings)
    stdout.line(`${style.yellow('warning:')} ${oneLine(message)} ${style.dim(`[${code}]`)}`);
}

/** Shards of a large checkpoint aren't worth a line each. */
const FILES_SHOWN = 3;

export function printBase(report: InspectedBase, io: Io): void {
  const { stdout } = io;
  const { tokenizer, files } = report;
  const [own, others] = report.dtype === 'f32' ? [4, 2] : [2, 4];
  const other = report.dtype === 'f32' ? 'bf16' : 'f32';
  const bytes = [own, others].map((width) => formatBytes(report.parameters * width));
  const kv = 1000 * report.kvBytesPerToken * (report.dtype === 'f32' ? 2 : 1);
  const chat = tokenizer.hasChatTemplate ? 'with a chat template' : 'no chat template: it continues text';
  const names = files.slice(0, FILES_SHOWN).map(({ name, bytes }) => `${name} (${formatBytes(bytes)})`);
  const more = files.length > FILES_SHOWN ? `, and ${files.length - FILES_SHOWN} more` : '';
  fields(io, 'base', report.path, [
    ['family', `${report.family}, ${formatShort(report.parameters)} parameters (${formatCount(report.parameters)})`],
    [
      'layers',
      `${report.layers}, hidden ${report.hidden}, ${report.heads} heads of ${report.headDim} (${report.kvHeads} for keys and values), mlp ${report.intermediate}`,
    ],
    ['memory', `${bytes[0]} of weights as ${report.dtype} (${bytes[1]} as ${other})`],
    ['', `${formatBytes(kv)} of KV cache for each 1,000 tokens`],
    ['context', `${formatCount(report.contextLength)} tokens`],
    ['vocabulary', `${formatCount(report.vocabSize)}, head ${report.isTied ? 'tied to the embedding' : 'of its own'}`],
    [
      'tokenizer',
      tokenizer.error
        ? `${tokenizer.error.message} [${tokenizer.error.code}]`
        : `${formatCount(tokenizer.tokens ?? 0)} tokens, ${chat}`,
    ],
    [
      'ends at',
      report.eosTokens.length > 0 ? `token ${report.eosTokens.join(', ')}` : 'no token: answers run to their limit',
    ],
    ['files', names.join(', ') + more],
    ['sites', `${report.sites.length} that adapters can act on`],
  ]);
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
  printWarnings(report.warnings, io);
}
