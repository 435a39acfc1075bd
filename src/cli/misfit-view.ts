// Why an adapter doesn't fit a base, on one screen of 80 columns: the reasons by code, what it was probably made for,
// and what to try.

import type { AdapterMisfit, InspectedAdapter, Misfit } from '../index.js';
import { hintOf, quoted } from './hints.js';
import type { Io } from './io.js';
import { cut, formatCount, formatShort, oneLine, pad, shortPath, widthOf, wrap } from './text.js';

const COLUMNS_MAX = 100;
/** Of one code. */
const ROWS_MAX = 7;
/** Reasons whose text is printed as it is. */
const TEXTS_MAX = 6;
const MODULES_MAX = 8;

/** What is true of many tensors, by code; `fact` is what each row says of its own. */
const TITLES: Readonly<Record<string, { title: string; fact(misfit: Misfit): string }>> = {
  ERR_ADAPTER_SHAPE: { title: 'have the wrong shape for this base', fact: shapes },
  ERR_ADAPTER_LAYER: { title: "are of layers that this base doesn't have", fact: layers },
  ERR_ADAPTER_RANK: { title: 'have another rank than adapter_config.json gives them', fact: layers },
  ERR_ADAPTER_TENSOR_SURPLUS: {
    title: 'are not promised by adapter_config.json',
    fact: ({ message }) => message.slice(message.lastIndexOf(': ') + 2),
  },
  ERR_ADAPTER_TENSOR_MISSING: { title: 'are promised by adapter_config.json and not in the file', fact: layers },
  ERR_ADAPTER_HALF_PAIR: { title: 'have only one of A and B', fact: layers },
  ERR_ADAPTER_DTYPE: { title: 'are neither F32, F16 nor BF16', fact: layers },
  ERR_ADAPTER_BASE_TENSOR: { title: "were saved along with the adapter and are not this base's", fact: layers },
};

export function printMisfit(report: InspectedAdapter, fit: AdapterMisfit, io: Io): void {
  const { stdout } = io;
  const { style } = stdout;
  const width = Math.min(stdout.columns, COLUMNS_MAX);
  const { base } = fit;
  const name = base.nameOrPath === undefined ? '' : `, ${oneLine(base.nameOrPath)}`;
  stdout.line(`${style.bold('base')} ${shortPath(base.path)}`);
  stdout.line(`  ${base.family}, ${formatShort(base.parameters)} parameters${name}`);
  const byCode = groupByCode(fit.reasons);
  stdout.line(
    `${style.red('✗ does not fit')}, for ${byCode.length === 1 ? 'one reason' : `${byCode.length} reasons`}:`,
  );
  for (const reasons of byCode) {
    const { title, rows } = explained(reasons, width - 2);
    const label = `[${reasons[0]!.code}]`;
    const isRoomy = widthOf(title.at(-1)!) + label.length + 3 <= width;
    const lines = isRoomy
      ? [...title.slice(0, -1), `${title.at(-1)} ${style.dim(label)}`]
      : [...title, style.dim(label)];
    for (const line of [...lines, ...rows]) stdout.line(`  ${line}`);
  }
  const sizes = compared(fit);
  for (const [label, text] of sizes) {
    wrap(text, width - 13).forEach((line, i) => stdout.line(`${style.bold(pad(i === 0 ? label : '', 13))}${line}`));
  }
  for (const { code, message } of report.warnings) {
    // Both names stand above.
    if (code !== 'WARN_ADAPTER_BASE_NAME')
      stdout.line(`${style.yellow('warning:')} ${cut(oneLine(message), width - 9)}`);
  }
  stdout.line(`${style.dim('try:')} ${nextThing(report, fit)}`);
}

/** In the order in which they were found, but that wrong shapes explain more than layers do. */
function groupByCode(reasons: Misfit[]): Misfit[][] {
  const groups = new Map<string, Misfit[]>();
  for (const reason of reasons) groups.set(reason.code, [...(groups.get(reason.code) ?? []), reason]);
  const isLayer = (group: Misfit[]) => Number(group[0]!.code === 'ERR_ADAPTER_LAYER');
  return [...groups.values()].sort((a, b) => isLayer(a) - isLayer(b));
}

/** Reasons of one code: a title and a row for each pattern, or the messages as they are. */
function explained(reasons: Misfit[], width: number): { title: string[]; rows: string[] } {
  const known = TITLES[reasons[0]!.code];
  const count = reasons.reduce((sum, reason) => sum + reason.count, 0);
  if (!known || count === 1 || reasons.some(({ modules }) => modules.length === 0)) {
    const title = reasons
      .slice(0, TEXTS_MAX)
      .flatMap(({ message }) => wrap(oneLine(message.replace(/^adapter_config\.json: /, '')), width));
    return { title, rows: reasons.length > TEXTS_MAX ? [`… and ${reasons.length - TEXTS_MAX} more`] : [] };
  }
  const what = reasons.every(({ tensor }) => tensor?.startsWith('base_model.')) ? 'tensors' : 'modules';
  const shown = [...reasons].sort((a, b) => b.count - a.count).slice(0, ROWS_MAX);
  const labels = shown.map(({ modules, matrix }) => `${modulesOf(modules)}${matrix ? ` · ${matrix}` : ''}`);
  const labelWidth = Math.min(Math.floor(width / 2), Math.max(...labels.map(widthOf)));
  const rows = shown.map((row, i) =>
    cut(`  ${pad(cut(labels[i]!, labelWidth), labelWidth)}  ${known.fact(row)}`, width),
  );
  if (reasons.length > shown.length) rows.push(`  … and ${reasons.length - shown.length} more`);
  return { title: wrap(`${formatCount(count)} ${what} ${known.title}`, width), rows };
}

function modulesOf(modules: string[]): string {
  const names = [...new Set(modules.map((module) => module.slice(module.lastIndexOf('.') + 1).replace(/_proj$/, '')))];
  const more = names.length > MODULES_MAX ? ` +${names.length - MODULES_MAX}` : '';
  return oneLine(names.slice(0, MODULES_MAX).join(' ')) + more;
}

function shapes({ got, wanted, message }: Misfit): string {
  return got && wanted ? `[${got.join(', ')}], wanted [${wanted.join(', ')}]` : message;
}

function layers({ layers: all }: Misfit): string {
  const [first, last] = [all[0], all.at(-1)];
  if (first === undefined) return '';
  if (first === last) return `layer ${first}`;
  return last! - first + 1 === all.length ? `layers ${first} to ${last}` : `${all.length} layers, ${first} to ${last}`;
}

const SIZES = [
  ['hidden', (n: number) => `hidden ${formatCount(n)}`],
  ['layers', (n: number) => `${formatCount(n)} layers`],
  ['intermediate', (n: number) => `mlp ${formatCount(n)}`],
  ['queryWidth', (n: number) => `queries ${formatCount(n)}`],
  ['kvWidth', (n: number) => `keys ${formatCount(n)}`],
  ['vocabSize', (n: number) => `vocabulary ${formatCount(n)}`],
] as const;

/** Sizes that differ, side by side; none where an adapter of fewer layers, or of the same sizes, is at fault otherwise. */
function compared({ madeFor, base }: AdapterMisfit): [string, string][] {
  const differs = SIZES.filter(([key]) => {
    const size = madeFor[key];
    const isTold = size !== undefined && !(key === 'queryWidth' && size === madeFor.hidden);
    return isTold && (key === 'layers' ? size > base.layers : size !== base[key]);
  });
  if (differs.length === 0) return [];
  const like = madeFor.like.length > 0 ? ` (like ${madeFor.like.join(', ')})` : '';
  return [
    ['  made for', differs.map(([key, show]) => show(madeFor[key]!)).join(', ') + like],
    ['  this base', differs.map(([key, show]) => show(base[key])).join(', ')],
  ];
}

function nextThing({ baseNameOrPath }: InspectedAdapter, fit: AdapterMisfit): string {
  const hint = hintOf(fit.error.code);
  if (!hint.startsWith('openlora inspect')) return hint;
  if (baseNameOrPath && /^[\w.-]+\/[\w.-]+$/.test(baseNameOrPath)) return `openlora pull ${quoted(baseNameOrPath)}`;
  const [like] = fit.madeFor.like;
  return like ? `the base that it was trained on, perhaps ${like}` : 'the base that it was trained on';
}
