import { TemplateError } from './chat-template-value.js';

const MONTHS = 'January February March April May June July August September October November December'.split(' ');
const DAYS = 'Sunday Monday Tuesday Wednesday Thursday Friday Saturday'.split(' ');
const DAY_MS = 86_400_000;

/** Directives whose numbers `-` leaves unpadded. */
const NUMBERS = 'CdegGHIjklmMSuUVwWyY';

/** Days since the epoch, of the calendar and not of the clock: no change of clocks moves them. */
function dayOf(year: number, month: number, day: number): number {
  return Date.UTC(year, month, day) / DAY_MS;
}

/** Year and week of ISO 8601: those of the week's Thursday. */
function isoWeek(day: number, weekday: number): { year: number; week: number } {
  const thursday = day - ((weekday + 6) % 7) + 3;
  const year = new Date(thursday * DAY_MS).getUTCFullYear();
  return { year, week: 1 + Math.floor((thursday - dayOf(year, 0, 1)) / 7) };
}

/**
 * Python's strftime of a naive datetime, in the C locale, as glibc has it; local time, thousandths of a second. `%-d` and
 * its like leave out zeros; directives that are not here (glibc's other flags, `%E…`, `%O…`, `%s`) are refused.
 */
export function strftime(date: Date, format: string): string {
  const padded = (n: number, width = 2, fill = '0'): string => String(n).padStart(width, fill);
  const [year, hours, weekday] = [date.getFullYear(), date.getHours(), date.getDay()];
  const month = MONTHS[date.getMonth()] ?? '';
  const weekdayName = DAYS[weekday] ?? '';
  const hour12 = hours % 12 || 12;
  const day = dayOf(year, date.getMonth(), date.getDate());
  const dayOfYear = day - dayOf(year, 0, 1);
  const iso = isoWeek(day, weekday);
  const parts: Record<string, string> = {
    Y: String(year),
    C: padded(Math.floor(year / 100)),
    y: padded(year % 100),
    G: String(iso.year),
    g: padded(iso.year % 100),
    m: padded(date.getMonth() + 1),
    B: month,
    b: month.slice(0, 3),
    h: month.slice(0, 3),
    d: padded(date.getDate()),
    e: padded(date.getDate(), 2, ' '),
    j: padded(dayOfYear + 1, 3),
    A: weekdayName,
    a: weekdayName.slice(0, 3),
    w: String(weekday),
    u: String(weekday || 7),
    U: padded(Math.floor((dayOfYear + 7 - weekday) / 7)),
    W: padded(Math.floor((dayOfYear + 7 - ((weekday + 6) % 7)) / 7)),
    V: padded(iso.week),
    H: padded(hours),
    k: padded(hours, 2, ' '),
    I: padded(hour12),
    l: padded(hour12, 2, ' '),
    M: padded(date.getMinutes()),
    S: padded(date.getSeconds()),
    f: padded(date.getMilliseconds() * 1000, 6),
    p: hours < 12 ? 'AM' : 'PM',
    P: hours < 12 ? 'am' : 'pm',
    // A naive datetime has no zone.
    z: '',
    Z: '',
    n: '\n',
    t: '\t',
    '%': '%',
  };
  for (const name of NUMBERS) parts[`-${name}`] = String(Number(parts[name]));
  const { a, b, e, d, m, y, H, I, M, S, p, Y } = parts;
  const T = `${H}:${M}:${S}`;
  const D = `${m}/${d}/${y}`;
  Object.assign(parts, { T, X: T, R: `${H}:${M}`, r: `${I}:${M}:${S} ${p}`, F: `${Y}-${m}-${d}`, D, x: D });
  parts.c = `${a} ${b} ${e} ${T} ${Y}`;
  return format.replace(/%(-?.|$)/gsu, (directive, name: string) => {
    const text = parts[name];
    if (text === undefined) throw new TemplateError(`strftime_now() has '${directive}', which is not supported`);
    return text;
  });
}
