import { invalid } from './validate.js';

const UNIT_BYTES: Readonly<Record<string, number>> = {
  '': 1,
  b: 1,
  kb: 1e3,
  mb: 1e6,
  gb: 1e9,
  tb: 1e12,
  kib: 2 ** 10,
  mib: 2 ** 20,
  gib: 2 ** 30,
  tib: 2 ** 40,
};

/** Bytes of a ByteSize: an integer, or text such as '8GiB', '500MB', '1.5 GB'. Throws ERR_INVALID_OPTION. */
export function parseByteSize(what: string, value: unknown): number {
  const bytes = typeof value === 'string' ? parseText(value) : value;
  if (typeof bytes !== 'number' || !Number.isSafeInteger(bytes) || bytes < 0) {
    invalid(what, value, "bytes, as an integer or as text such as '8GiB' or '500MB'");
  }
  return bytes;
}

/**
 * Up to 16 digits, up to nine more behind a point, and a unit. By hand: compiling a regular expression takes as long as
 * everything else that `loadBase` does in its first turn.
 */
function parseText(text: string): number {
  const trimmed = text.trim().toLowerCase();
  const whole = digitsAt(trimmed, 0);
  const fraction = trimmed[whole] === '.' ? digitsAt(trimmed, whole + 1) : 0;
  const isNumber = whole > 0 && whole <= 16 && (trimmed[whole] !== '.' || (fraction > 0 && fraction <= 9));
  const end = trimmed[whole] === '.' ? whole + 1 + fraction : whole;
  const suffix = trimmed.slice(end).trimStart();
  const unit = Object.hasOwn(UNIT_BYTES, suffix) ? UNIT_BYTES[suffix] : undefined;
  return isNumber && unit !== undefined ? Math.floor(Number(trimmed.slice(0, end)) * unit) : Number.NaN;
}

/** How many decimal digits stand in `text` from `begin` on. */
function digitsAt(text: string, begin: number): number {
  let end = begin;
  while (end < text.length && text[end]! >= '0' && text[end]! <= '9') end++;
  return end - begin;
}

/** Bytes for a message: '1.5 GiB'. */
export function showBytes(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let place = 0;
  let value = bytes;
  for (; value >= 1024 && place < units.length - 1; place++) value /= 1024;
  return `${Number(value.toFixed(1))} ${units[place]}`;
}
