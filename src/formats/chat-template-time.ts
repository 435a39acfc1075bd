import { TemplateError } from './chat-template-value.js';

const MONTHS = 'January February March April May June July August September October November December'.split(' ');
const DAYS = 'Sunday Monday Tuesday Wednesday Thursday Friday Saturday'.split(' ');

/** Python's strftime in the C locale, in local time. A directive that is not here is refused. */
export function strftime(date: Date, format: string): string {
  const two = (n: number): string => String(n).padStart(2, '0');
  const month = MONTHS[date.getMonth()] ?? '';
  const day = DAYS[date.getDay()] ?? '';
  const hour12 = date.getHours() % 12 || 12;
  const daysBefore = Math.round(
    (Date.UTC(date.getFullYear(), date.getMonth(), date.getDate()) - Date.UTC(date.getFullYear(), 0, 0)) / 86_400_000,
  );
  const parts: Record<string, string> = {
    Y: String(date.getFullYear()),
    y: two(date.getFullYear() % 100),
    m: two(date.getMonth() + 1),
    B: month,
    b: month.slice(0, 3),
    d: two(date.getDate()),
    e: String(date.getDate()).padStart(2, ' '),
    j: String(daysBefore).padStart(3, '0'),
    A: day,
    a: day.slice(0, 3),
    w: String(date.getDay()),
    H: two(date.getHours()),
    I: two(hour12),
    M: two(date.getMinutes()),
    S: two(date.getSeconds()),
    p: date.getHours() < 12 ? 'AM' : 'PM',
    '%': '%',
    '-d': String(date.getDate()),
    '-m': String(date.getMonth() + 1),
    '-H': String(date.getHours()),
    '-I': String(hour12),
  };
  parts.F = `${parts.Y}-${parts.m}-${parts.d}`;
  parts.T = `${parts.H}:${parts.M}:${parts.S}`;
  return format.replace(/%(-?.|$)/gs, (directive, name: string) => {
    const text = parts[name];
    if (text === undefined) throw new TemplateError(`strftime_now() has '${directive}', which is not supported`);
    return text;
  });
}
