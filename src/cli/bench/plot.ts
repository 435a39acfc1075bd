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

/** Bars from zero, on one scale. */
export function barPlot(bars: readonly Bar[]): string {
  const most = Math.max(...bars.flatMap(({ value, spread, limit }) => [value, spread?.[1] ?? 0, limit ?? 0]));
  const x = (value: number) => (NAME_WIDTH + (value / (most || 1)) * (WIDTH - NAME_WIDTH - TEXT_WIDTH)).toFixed(1);
  const height = bars.length * ROW + 4;
  const rows = bars.map((bar, i) => oneBar(bar, i * ROW + ROW / 2 + 2, x));
  const axis = `<line class="axis" x1="${NAME_WIDTH}" x2="${NAME_WIDTH}" y1="0" y2="${height}"/>`;
  const label = escape(bars.map(({ name, text }) => `${name} ${text}`).join('; '));
  return `<figure><svg viewBox="0 0 ${WIDTH} ${height}" role="img" aria-label="${label}">\n${[...rows, axis].join('\n')}\n</svg></figure>`;
}

function oneBar({ name, value, text, spread, limit, isOld }: Bar, y: number, x: (value: number) => string): string {
  const top = y - BAR / 2;
  const width = (Number(x(value)) - NAME_WIDTH).toFixed(1);
  const end = Math.max(...[value, spread?.[1], limit].map((at) => Number(x(at ?? 0))));
  const parts = [
    `<text x="${NAME_WIDTH - 8}" y="${y + 4}" text-anchor="end">${escape(name)}</text>`,
    `<rect class="${isOld ? 'old' : 'bar'}" x="${NAME_WIDTH}" y="${top}" width="${width}" height="${BAR}"/>`,
  ];
  if (spread) parts.push(`<line class="spread" x1="${x(spread[0])}" x2="${x(spread[1])}" y1="${y}" y2="${y}"/>`);
  if (limit !== undefined) {
    const at = x(limit);
    parts.push(`<line class="limit" x1="${at}" x2="${at}" y1="${top - 3}" y2="${top + BAR + 3}"/>`);
  }
  parts.push(`<text class="dim" x="${(end + 8).toFixed(1)}" y="${y + 4}">${escape(text)}</text>`);
  return parts.join('');
}
