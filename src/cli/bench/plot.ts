// Horizontal bars as SVG.

export interface Bar {
  name: string;
  value: number;
  /** Beside the bar. */
  text: string;
  spread?: readonly [number, number];
  /** Where a mark goes. */
  limit?: number | undefined;
  isOld?: boolean;
}

const WIDTH = 960;
const NAME_WIDTH = 380;
/** Names of more characters stand above their bars. */
const NAME_LENGTH_MAX = 52;
const NAME_ROW = 20;
const TEXT_WIDTH = 170;
const ROW = 24;
const BAR = 14;

export function escape(text: string): string {
  return text
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll('"', '&quot;')
    .replace(/(?![\n\t])\p{Cc}/gu, '\ufffd');
}

/** Where things stand: the bars' left end, a bar's row with its name, and what a value is across. */
interface Layout {
  left: number;
  row: number;
  x: (value: number) => number;
}

/** Bars from zero, on one scale. */
export function barPlot(bars: readonly Bar[]): string {
  const most = Math.max(...bars.flatMap(({ value, spread, limit }) => [value, spread?.[1] ?? 0, limit ?? 0]));
  const isStacked = bars.some(({ name }) => name.length > NAME_LENGTH_MAX);
  const left = isStacked ? 1 : NAME_WIDTH;
  const x = (value: number) => left + (value / (most || 1)) * (WIDTH - left - TEXT_WIDTH);
  const layout: Layout = { left, row: isStacked ? ROW + NAME_ROW : ROW, x };
  const height = bars.length * layout.row + 4;
  const rows = bars.map((bar, i) => oneBar(bar, i * layout.row + 2, layout));
  const axis = `<line class="axis" x1="${left}" x2="${left}" y1="0" y2="${height}"/>`;
  const label = escape(bars.map(({ name, text }) => `${name} ${text}`).join('; '));
  return `<figure><svg viewBox="0 0 ${WIDTH} ${height}" role="img" aria-label="${label}">\n${[...rows, axis].join('\n')}\n</svg></figure>`;
}

function oneBar({ name, value, text, spread, limit, isOld }: Bar, top: number, { left, row, x }: Layout): string {
  const middle = top + row - ROW / 2;
  const y = middle - BAR / 2;
  const at = (of: number) => x(of).toFixed(1);
  const end = Math.max(...[value, spread?.[1], limit].map((of) => x(of ?? 0)));
  const label =
    row > ROW
      ? `<text x="${left + 4}" y="${top + NAME_ROW - 5}">${escape(name)}</text>`
      : `<text x="${left - 8}" y="${middle + 4}" text-anchor="end">${escape(name)}</text>`;
  const parts = [
    label,
    `<rect class="${isOld ? 'old' : 'bar'}" x="${left}" y="${y}" width="${(x(value) - left).toFixed(1)}" height="${BAR}"/>`,
  ];
  if (spread)
    parts.push(`<line class="spread" x1="${at(spread[0])}" x2="${at(spread[1])}" y1="${middle}" y2="${middle}"/>`);
  if (limit !== undefined)
    parts.push(`<line class="limit" x1="${at(limit)}" x2="${at(limit)}" y1="${y - 3}" y2="${y + BAR + 3}"/>`);
  parts.push(`<text class="dim" x="${(end + 8).toFixed(1)}" y="${middle + 4}">${escape(text)}</text>`);
  return parts.join('');
}
