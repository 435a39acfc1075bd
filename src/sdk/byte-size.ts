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

function parseText(text: string): number {
  const match = /^\s*(\d{1,16}(?:\.\d{1,9})?)\s*([a-z]{0,3})\s*$/.exec(text.toLowerCase());
  const unit = UNIT_BYTES[match?.[2] ?? 'none'];
  return match === null || unit === undefined ? Number.NaN : Math.floor(Number(match[1]) * unit);
}

/** Bytes for a message: '1.5 GiB'. */
export function showBytes(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let place = 0;
  let value = bytes;
  for (; value >= 1024 && place < units.length - 1; place++) value /= 1024;
  return `${Number(value.toFixed(1))} ${units[place]}`;
}
