// The table of ratios on a terminal and on a page, and the lines about who was measured.

import { htmlTable, page, provenance } from '../../src/cli/bench/page.js';
import { barPlot, escape } from '../../src/cli/bench/plot.js';
import type { Line } from '../../src/cli/bench/report.js';
import { formatNumber, formatShare, formatSpread } from '../../src/cli/bench/view.js';
import type { Output } from '../../src/cli/io.js';
import { table } from '../../src/cli/text.js';
import type { Ratio } from './ratios.js';
import type { Facts, PeersReport } from './main.js';

const COLUMNS = ['', 'openlora', 'tokens/s', 'spread', 'peer', 'tokens/s', 'spread', 'ratio', 'spread', 'goal', ''];
const TEXT_COLUMNS = [0, 1, 4, 10];

const spread = (speed: Omit<Line, 'name' | 'unit' | 'better'>) => formatSpread(speed as Line);

function cells({ title, ours, peer, ratio, goal, share, shareGoal, verdict, reason }: Ratio): string[] {
  const shares = share === undefined ? '' : `, ${formatShare(share)} of the bandwidth`;
  const asked = shareGoal === undefined || share === undefined ? '' : ` (${formatShare(shareGoal)} asked)`;
  return [
    title,
    ours.name.replace('openlora ', ''),
    formatNumber(ours.median),
    spread(ours),
    peer.way === undefined ? peer.name : `${peer.name}, ${peer.way}`,
    formatNumber(peer.median),
    spread(peer),
    ratio.median.toFixed(2),
    ratio.samples < 2 ? '' : `${ratio.low.toFixed(2)}–${ratio.high.toFixed(2)}`,
    goal === undefined ? '' : `≥ ${goal}`,
    `${verdict}${reason === undefined ? '' : `: ${reason}`}${shares}${asked}`.replace(/^, /, ''),
  ];
}

export function printRatios(ratios: readonly Ratio[], { line, style }: Pick<Output, 'line' | 'style'>): void {
  const columns = COLUMNS.map((title, i) => ({
    title,
    align: TEXT_COLUMNS.includes(i) ? ('left' as const) : ('right' as const),
  }));
  for (const text of table(columns, ratios.map(cells), style.dim)) line(text);
}

export function printLines(lines: readonly Line[], { line, style }: Pick<Output, 'line' | 'style'>): void {
  const columns = [
    { title: '' },
    { title: 'median', align: 'right' as const },
    { title: '' },
    { title: 'spread', align: 'right' as const },
  ];
  const rows = lines.map((one) => [one.name, formatNumber(one.median), one.unit, formatSpread(one)]);
  for (const text of table(columns, rows, style.dim)) line(text);
}

/** `llama.cpp: backend libggml-cpu-zen4.so; …`, then `llama.cpp q8_0: …`: what an engine's formats share is said once. */
export function factLines(facts: Facts): string[] {
  const engines = [...new Set(Object.keys(facts).map((name) => name.split(' ')[0]!))];
  return engines.flatMap((engine) => {
    const names = Object.keys(facts).filter((name) => name.startsWith(`${engine} `));
    const isShared = (key: string) => names.every((name) => facts[name]![key] === facts[names[0]!]![key]);
    const text = (name: string, shared: boolean) =>
      Object.entries(facts[name]!)
        .filter(([key]) => isShared(key) === shared)
        .map(([key, value]) => `${key} ${value}`)
        .join('; ');
    return [[engine, text(names[0]!, true)], ...names.map((name) => [name, text(name, false)])]
      .filter(([, said]) => said !== '')
      .map(([who, said]) => `${who}: ${said}`);
  });
}

export function ratiosPage(report: PeersReport): string {
  const { ratios, lines, limits, facts } = report;
  const title = 'openlora beside its peers';
  const bars = ratios.map(({ title: row, ours, peer, ratio, goal }) => ({
    name: `${row}: ${ours.name} / ${peer.name}`,
    value: ratio.median,
    text: `× ${ratio.median.toFixed(2)}`,
    ...(ratio.samples < 2 ? {} : { spread: [ratio.low, ratio.high] as const }),
    limit: goal,
  }));
  const numbers = [...limits, ...lines].map((one) => [one.name, formatNumber(one.median), one.unit, formatSpread(one)]);
  return page(title, [
    `<h1>${escape(title)}</h1>`,
    ...provenance(report),
    barPlot(bars),
    '<p>Bars are ratios of medians, thin lines the spread of the rounds, red marks what is asked.</p>',
    '<h2>Ratios</h2>',
    htmlTable(
      COLUMNS,
      ratios.map((one) => cells(one).map(escape)),
    ),
    '<h2>Numbers</h2>',
    htmlTable(
      ['', 'median', 'unit', 'spread'],
      numbers.map((row) => row.map(escape)),
    ),
    '<h2>Engines</h2>',
    ...factLines(facts).map((text) => `<p>${escape(text)}</p>`),
  ]);
}
