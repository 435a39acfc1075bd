// Why an adapter doesn't fit a base, on one screen: the reasons by code, what it was probably made for, and what to try.
// Where that is more than a screen, reasons are told in fewer words, and at last some codes are only counted.

import type { AdapterMisfit, InspectedAdapter, Misfit } from '../index.js';
import { hintOf, quoted } from './hints.js';
import type { Io } from './io.js';
import type { Style } from './style.js';
import { cut, formatCount, formatShort, oneLine, pad, shortPath, widthOf, wrap } from './text.js';

const COLUMNS_MAX = 100;
/** Of a terminal, less one for what is typed next; higher ones don't get more. */
const SCREEN_ROWS = 23;
/** Rows of one code. */
const ROWS_MAX = 7;
/** Reasons of one code whose text is printed as it is. */
const TEXTS_MAX = 6;
const MODULES_MAX = 8;

interface Title {
  title: string;
  /** What each row says of its own. */
  fact: (misfit: Misfit) => string;
  /** What there are so many of. */
  what?: string;
}

/** What is true of many tensors, by code. */
const TITLES: Readonly<Record<string, Title>> = {
  ERR_ADAPTER_SHAPE: { title: 'have the wrong shape for this base', fact: shapes },
  ERR_ADAPTER_LAYER: { title: "are of layers that this base doesn't have", fact: layers },
  ERR_ADAPTER_RANK: { title: 'have another rank than adapter_config.json gives them', fact: layers },
  ERR_ADAPTER_TENSOR_SURPLUS: { title: 'are of no targeted module of this base', fact: aside },
  ERR_ADAPTER_TENSOR_MISSING: {
    title: 'are promised by adapter_config.json and not in the file',
    fact: layers,
    what: 'modules',
  },
  ERR_ADAPTER_HALF_PAIR: { title: 'have only one of A and B', fact: layers, what: 'modules' },
  ERR_ADAPTER_DTYPE: { title: 'are neither F32, F16 nor BF16', fact: layers },
  ERR_ADAPTER_BASE_TENSOR: { title: "were saved along with the adapter and are not this base's", fact: aside },
};

/** `above`: rows of the screen that are taken. */
export function printMisfit(report: InspectedAdapter, fit: AdapterMisfit, io: Io, above: number): void {
  const { stdout } = io;
  const { style } = stdout;
  const width = Math.min(stdout.columns, COLUMNS_MAX);
  const { base } = fit;
  const name = base.nameOrPath === undefined ? '' : `, ${oneLine(base.nameOrPath)}`;
  const byCode = groupByCode(fit.reasons);
  const count = byCode.length === 1 ? 'one reason' : `${byCode.length} reasons`;
  const head = [
    `${style.bold('base')} ${shortPath(base.path)}`,
    cut(`  ${base.family}, ${formatShort(base.parameters)} parameters${name}`, width),
    `${style.red('✗ does not fit')}, for ${count}:`,
  ];
  const sizes = compared(fit).flatMap(([label, text]) =>
    wrap(text, width - 13).map((line, i) => `${style.bold(pad(i === 0 ? label : '', 13))}${line}`),
  );
  const tail = [...sizes, ...warningsOf(report, width, style), `${style.dim('try:')} ${nextThing(report, fit)}`];
  const taken = [...head, ...tail].reduce((sum, line) => sum + Math.ceil(widthOf(line) / stdout.columns), above);
  const reasons = fitted(byCode, fit.error.code, width - 2, SCREEN_ROWS - taken, style.dim);
  for (const line of [...head, ...reasons.map((one) => `  ${one}`), ...tail]) stdout.line(line);
}

/** There is at most one of each code. */
function warningsOf({ warnings }: InspectedAdapter, width: number, style: Style): string[] {
  // Both names stand above.
  const others = warnings.filter(({ code }) => code !== 'WARN_ADAPTER_BASE_NAME');
  return others.map(({ message }) => `${style.yellow('warning:')} ${cut(oneLine(message), width - 9)}`);
}

/** In the order in which they were found, but that wrong shapes explain more than layers do. */
function groupByCode(reasons: Misfit[]): Misfit[][] {
  const groups = new Map<string, Misfit[]>();
  for (const reason of reasons) groups.set(reason.code, [...(groups.get(reason.code) ?? []), reason]);
  const isLayer = (group: Misfit[]) => Number(group[0]!.code === 'ERR_ADAPTER_LAYER');
  return [...groups.values()].sort((a, b) => isLayer(a) - isLayer(b));
}

type Dim = (text: string) => string;

/** All reasons in at most `rows` lines, with as much detail as there is room for; `first` is the code that is never left out. */
function fitted(byCode: Misfit[][], first: string, width: number, rows: number, dim: Dim): string[] {
  for (let detail = ROWS_MAX; detail >= 0; detail--) {
    const blocks = byCode.map((reasons) => explained(reasons, detail, width, dim));
    const lines = blocks.flatMap((block) => block.lines);
    if (blocks.some(({ isWhole }) => !isWhole)) lines.push(dim('--json lists all'));
    if (lines.length <= rows) return lines;
  }
  const room = Math.max(1, rows - 1);
  const isFirst = (reasons: Misfit[]) => reasons[0]!.code === first;
  const others = byCode.filter((reasons) => !isFirst(reasons));
  const told = new Set([...byCode.filter(isFirst), ...others].slice(0, room));
  const shown = byCode.filter((reasons) => told.has(reasons));
  return [
    ...shown.flatMap((reasons) => explained(reasons, 0, width, dim).lines),
    dim(`… and ${byCode.length - shown.length} more; --json lists all`),
  ];
}

interface Explained {
  lines: string[];
  /** Nothing is left out. */
  isWhole: boolean;
}

/**
 * Reasons of one code: a title and a row for each pattern, or the messages as they are. `detail` is how many rows there
 * may be, and how many messages; at 0 all is one line.
 */
function explained(reasons: Misfit[], detail: number, width: number, dim: Dim): Explained {
  const label = `[${reasons[0]!.code}]`;
  const known = TITLES[reasons[0]!.code];
  const count = reasons.reduce((sum, reason) => sum + reason.count, 0);
  const isKnown = known !== undefined && count > 1 && reasons.every(({ modules }) => modules.length > 0);
  const texts = isKnown
    ? [`${formatCount(count)} ${known.what ?? 'tensors'} ${known.title}`]
    : reasons.map(({ message }) => oneLine(message.replace(/^adapter_config\.json: /, '')));
  if (detail === 0) {
    const more = texts.length > 1 ? `, and ${texts.length - 1} more` : '';
    const room = width - label.length - 1 - more.length;
    const isWhole = !isKnown && texts.length === 1 && widthOf(texts[0]!) <= room;
    return { lines: [`${cut(texts[0]!, room)}${more} ${dim(label)}`], isWhole };
  }
  const title = texts.slice(0, Math.min(detail, TEXTS_MAX)).flatMap((text) => wrap(text, width));
  const isRoomy = widthOf(title.at(-1)!) + label.length + 1 <= width;
  const lines = isRoomy ? [...title.slice(0, -1), `${title.at(-1)} ${dim(label)}`] : [...title, dim(label)];
  const rows = isKnown ? rowsOf(reasons, detail, known, width) : [];
  const left = isKnown ? reasons.length - rows.length : Math.max(0, texts.length - Math.min(detail, TEXTS_MAX));
  if (left > 0) rows.push(`${isKnown ? '  ' : ''}… and ${left} more`);
  return { lines: [...lines, ...rows], isWhole: left === 0 };
}

function rowsOf(reasons: Misfit[], most: number, { fact }: Title, width: number): string[] {
  const shown = [...reasons].sort((a, b) => b.count - a.count).slice(0, most);
  const labels = shown.map(({ modules, matrix }) => `${modulesOf(modules)}${matrix ? ` · ${matrix}` : ''}`);
  const labelWidth = Math.min(Math.floor(width / 2), Math.max(...labels.map(widthOf)));
  return shown.map((row, i) =>
    cut(`  ${pad(cut(labels[i]!, labelWidth), labelWidth)}  ${oneLine(fact(row))}`.trimEnd(), width),
  );
}

function modulesOf(modules: string[]): string {
  const names = [...new Set(modules.map((module) => module.slice(module.lastIndexOf('.') + 1).replace(/_proj$/, '')))];
  const more = names.length > MODULES_MAX ? ` +${names.length - MODULES_MAX}` : '';
  return oneLine(names.slice(0, MODULES_MAX).join(' ')) + more;
}

function shapes({ got, wanted, message }: Misfit): string {
  return got && wanted ? `[${got.join(', ')}], wanted [${wanted.join(', ')}]` : message;
}

/** What the message says after the tensor's name, without the words that all of its code have. */
function aside({ message, tensor = '' }: Misfit): string {
  const rest = message.slice(message.indexOf(tensor) + tensor.length);
  return rest.slice(rest.lastIndexOf(': ') + 1).replace(/^ (?:is )?/, '');
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
