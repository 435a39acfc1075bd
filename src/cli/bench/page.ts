// Reports of every bench as one page by itself: no script, nothing loaded, plots as SVG.

import type { Comparison } from './compare.js';
import { barPlot, escape } from './plot.js';
import type { BenchReport, Line, ReportHead, Unit } from './report.js';
import { formatNumber, formatShare, formatSpread, headOf, sizesOf } from './view.js';

const CSS = `
:root { color-scheme: light dark; --ink: #1c1f24; --dim: #69707a; --paper: #fff; --bar: #3b7dd8; --old: #b8c4d3; --mark: #d1495b }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8eb; --dim: #9aa3ad; --paper: #16181c; --bar: #5a9bf0; --old: #4a5666; --mark: #f07a8a } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.4rem } h2 { font-size: 1.1rem; margin-top: 2rem }
p, figcaption { color: var(--dim) } code { color: var(--ink) } figure { margin: 0 } svg { width: 100%; height: auto }
svg text { font: 12px system-ui, sans-serif; fill: var(--ink) } svg .dim { fill: var(--dim) }
.bar { fill: var(--bar) } .old { fill: var(--old) } .spread { stroke: var(--ink) } .limit { stroke: var(--mark); stroke-width: 2 }
.axis { stroke: var(--dim) } table { border-collapse: collapse; margin: 1rem 0 } td, th { padding: .2rem .7rem; text-align: right; font-variant-numeric: tabular-nums }
td:first-child, th:first-child { text-align: left } tr { border-bottom: 1px solid color-mix(in srgb, var(--dim) 30%, transparent) }
.better { color: #2a9d5c } .worse { color: var(--mark) }`;

export function page(title: string, body: string[]): string {
  return [
    '<!doctype html>',
    '<html lang="en">',
    `<head><meta charset="utf-8"/><meta name="viewport" content="width=device-width"/><title>${escape(title)}</title>`,
    `<style>${CSS}</style></head>`,
    '<body>',
    ...body,
    '</body>',
    '</html>\n',
  ].join('\n');
}

const unitsOf = (lines: readonly { unit: Unit }[]): Unit[] => [...new Set(lines.map(({ unit }) => unit))];
const plotOf = ({ plot, unit }: Line): string => (plot === undefined ? unit : `${plot}, ${unit}`);

/** The value that a line would have at the limit. */
function limitValue({ median, better, limits }: Line): number | undefined {
  if (!limits) return undefined;
  return better === 'higher' ? median / limits.ofLimit : median * limits.ofLimit;
}

export function reportPage(report: BenchReport): string {
  const title = `openlora bench ${report.bench}`;
  const plots = [...new Set(report.lines.map(plotOf))].flatMap((plot) => {
    const lines = report.lines.filter((line) => plotOf(line) === plot);
    const bars = lines.map((line) => ({
      name: line.name,
      value: line.median,
      text: `${formatNumber(line.median)}${line.limits ? ` · ${formatShare(line.limits.ofLimit)} of limit` : ''}`,
      ...(line.samples < 2 ? {} : { spread: [line.low, line.high] as const }),
      limit: limitValue(line),
    }));
    return [`<h2>${escape(plot)}</h2>`, barPlot(bars)];
  });
  return page(title, [
    `<h1>${escape(title)}</h1>`,
    ...provenance(report),
    ...plots,
    '<p>Bars are medians, thin lines the spread, red marks what the limits of the machine allowed at that time.</p>',
    '<h2>Numbers</h2>',
    numbers(report.lines),
  ]);
}

export function provenance(report: Omit<ReportHead, 'schema' | 'bench'>): string[] {
  const { versions, date, command } = report;
  const sizes = sizesOf(report);
  return [
    `<p>${escape(headOf(report))}<br/>`,
    ...(sizes === '' ? [] : [`${escape(sizes)}<br/>`]),
    `openlora ${escape(versions.openlora)}, Node ${escape(versions.node)}, ${escape(date)}<br/>`,
    `<code>${escape(command)}</code></p>`,
    ...(report.isQuick ? ['<p>A quick run: it shows that the bench works, and says little about speed.</p>'] : []),
  ];
}

function numbers(lines: readonly Line[]): string {
  const heads = ['', 'median', 'unit', 'spread', 'samples', 'of limit', 'read GB/s', 'peak GOP/s', 'of base', 'error'];
  const rows = lines.map(({ limits, retention, error, ...line }) => [
    line.name,
    formatNumber(line.median),
    line.unit,
    formatSpread(line as Line),
    String(line.samples),
    limits ? formatShare(limits.ofLimit) : '',
    limits ? formatNumber(limits.readGbs) : '',
    limits?.peakGops === undefined ? '' : `${formatNumber(limits.peakGops)} (${limits.peak})`,
    retention === undefined ? '' : formatShare(retention),
    error === undefined ? '' : error.toExponential(0),
  ]);
  const used = heads.map((_, i) => rows.some((row) => row[i] !== ''));
  return htmlTable(
    heads.filter((_, i) => used[i]),
    rows.map((row) => row.filter((_, i) => used[i]).map(escape)),
  );
}

/** Cells are HTML already. */
export function htmlTable(heads: readonly string[], rows: readonly (readonly string[])[]): string {
  const row = (cells: readonly string[], tag: string) =>
    `<tr>${cells.map((cell) => `<${tag}>${cell}</${tag}>`).join('')}</tr>`;
  return `<table>\n${[row(heads.map(escape), 'th'), ...rows.map((cells) => row(cells, 'td'))].join('\n')}\n</table>`;
}

export function comparisonPage(comparison: Comparison): string {
  const { before, after, differences, lines } = comparison;
  const title = `openlora bench ${before.bench}: before and after`;
  const plots = unitsOf(lines).flatMap((unit) => [
    `<h2>${escape(unit)}</h2>`,
    barPlot(
      lines
        .filter((line) => line.unit === unit)
        .flatMap(({ name, ratio, ...both }) =>
          (['before', 'after'] as const).map((when) => ({
            name: when === 'before' ? name : '',
            value: both[when].median,
            text: `${formatNumber(both[when].median)}${when === 'after' ? ` · × ${ratio.toFixed(3)}` : ''}`,
            ...(both[when].samples < 2 ? {} : { spread: [both[when].low, both[when].high] as const }),
            isOld: when === 'before',
          })),
        ),
    ),
  ]);
  const rows = lines.map(({ name, unit, ratio, change, before: one, after: other }) => [
    escape(name),
    formatNumber(one.median),
    formatNumber(other.median),
    escape(unit),
    ratio.toFixed(3),
    `<span class="${change === 'better' || change === 'worse' ? change : 'same'}">${escape(change)}</span>`,
  ]);
  return page(title, [
    `<h1>${escape(title)}</h1>`,
    ...provenance(before),
    ...provenance(after),
    ...(differences.length > 0 ? [`<p class="worse">Different: ${escape(differences.join('; '))}</p>`] : []),
    ...plots,
    '<h2>Numbers</h2>',
    htmlTable(['', 'before', 'after', 'unit', 'after/before', 'change'], rows),
  ]);
}
