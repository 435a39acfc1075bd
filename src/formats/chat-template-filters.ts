// Jinja2's filters and tests, as far as chat templates use them. What is not here is refused by name.

import { spendFor } from './chat-template-budget.js';
import { capitalize, replaceText, splitLines, strip, textArgument } from './chat-template-methods.js';
import { plain } from './chat-template-marks.js';
import {
  Attributes,
  Float,
  type Kwargs,
  TemplateError,
  type Value,
  compare,
  isDict,
  isEqual,
  isTrue,
  itemsOf,
  iterate,
  numberOf,
  toJson,
  toText,
  typeName,
} from './chat-template-value.js';

type Filter = (value: Value, args: Value[], kwargs: Kwargs) => Value;
type Test = (value: Value, argument: Value) => boolean;

/** `value.name` or `value[name]`, as the renderer reads members. */
type GetMember = (value: Value, name: Value) => Value;

/** Blanks of one level: more would be there to fill the memory. */
const INDENT_MAX = 1000;

function lengthOf(value: Value): number {
  if (isDict(value)) return value.size;
  if (typeof value === 'string' || Array.isArray(value) || value === undefined) return iterate(value).length;
  throw new TemplateError(`${typeName(value)} has no length`);
}

const compareBy =
  (test: (order: number) => boolean): Test =>
  (a, b) =>
    test(compare(a, b));
const isInteger: Test = (value) => typeof value === 'number';

export const TESTS: ReadonlyMap<string, Test> = new Map<string, Test>([
  ['defined', (value) => value !== undefined],
  ['undefined', (value) => value === undefined],
  ['none', (value) => value === null],
  ['true', (value) => value === true],
  ['false', (value) => value === false],
  ['boolean', (value) => typeof value === 'boolean'],
  ['integer', isInteger],
  ['float', (value) => value instanceof Float],
  ['number', (value) => numberOf(value) !== undefined],
  ['string', (value) => typeof value === 'string'],
  ['mapping', isDict],
  ['sequence', (value) => isDict(value) || Array.isArray(value) || typeof value === 'string'],
  ['iterable', (value) => isDict(value) || Array.isArray(value) || typeof value === 'string' || value === undefined],
  ['callable', (value) => typeof value === 'function'],
  ['odd', (value) => Math.abs((numberOf(value) ?? NaN) % 2) === 1],
  ['even', (value) => numberOf(value) !== undefined && (numberOf(value) ?? 1) % 2 === 0],
  ['divisibleby', (value, by) => (numberOf(value) ?? NaN) % (numberOf(by) ?? NaN) === 0],
  ['lower', (value) => toText(value) === toText(value).toLowerCase() && /\p{L}/u.test(toText(value))],
  ['upper', (value) => toText(value) === toText(value).toUpperCase() && /\p{L}/u.test(toText(value))],
  ['sameas', (value, other) => value === other],
  ['in', (value, list) => isIn(value, list)],
  ...['eq', 'equalto', '=='].map((name): [string, Test] => [name, isEqual]),
  ...['ne', '!='].map((name): [string, Test] => [name, (a, b) => !isEqual(a, b)]),
  ...['lt', 'lessthan', '<'].map((name): [string, Test] => [name, compareBy((order) => order < 0)]),
  ...['le', '<='].map((name): [string, Test] => [name, compareBy((order) => order <= 0)]),
  ...['gt', 'greaterthan', '>'].map((name): [string, Test] => [name, compareBy((order) => order > 0)]),
  ...['ge', '>='].map((name): [string, Test] => [name, compareBy((order) => order >= 0)]),
]);

/** Python's `in` */
export function isIn(item: Value, container: Value): boolean {
  if (container === undefined) return false;
  spendFor(container);
  if (typeof container === 'string') return plain(container).includes(plain(textArgument(item, 'in')));
  if (isDict(container)) return container.has(item);
  return iterate(container).some((one) => isEqual(one, item));
}

export function testOf(name: Value): Test {
  const test = TESTS.get(toText(name));
  if (!test) throw new TemplateError(`test '${toText(name)}' is not supported`);
  return test;
}

function join(value: Value, args: Value[], kwargs: Kwargs, getMember: GetMember): string {
  const attribute = args[1] ?? kwargs.get('attribute');
  const items = iterate(value).map((item) => (attribute === undefined ? item : memberAt(item, attribute, getMember)));
  return items.map(toText).join(toText(args[0] ?? kwargs.get('d')));
}

/** `a.b.0`: a path of members. */
function memberAt(value: Value, path: Value, getMember: GetMember): Value {
  if (typeof path === 'number') return getMember(value, path);
  return textArgument(path, 'attribute')
    .split('.')
    .reduce((at: Value, part) => getMember(at, /^\d+$/.test(part) ? Number(part) : part), value);
}

function toInt(value: Value, fallback: Value): Value {
  const number = numberOf(value);
  if (number !== undefined && Number.isFinite(number)) return Math.trunc(number);
  if (typeof value === 'string') {
    const text = strip(value, null, 'both').replace(/(\d)_(?=\d)/g, '$1');
    if (/^[+-]?\d+$/.test(text)) return Number(text);
    const float = toFloat(text, null);
    if (float instanceof Float && Number.isFinite(float.value)) return Math.trunc(float.value);
  }
  return fallback;
}

function toFloat(value: Value, fallback: Value): Value {
  const number = numberOf(value);
  if (number !== undefined) return new Float(number);
  const text = typeof value === 'string' ? strip(value, null, 'both') : '';
  return /^[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?$/i.test(text) ? new Float(Number(text)) : fallback;
}

function indent(text: string, args: Value[], kwargs: Kwargs): string {
  const width = args[0] ?? kwargs.get('width') ?? 4;
  const prefix = typeof width === 'string' ? width : ' '.repeat(Math.min(numberOf(width) ?? 0, INDENT_MAX));
  const isFirst = isTrue(args[1] ?? kwargs.get('first'));
  const isBlank = isTrue(args[2] ?? kwargs.get('blank'));
  const [head = '', ...rest] = isBlank ? `${text}\n`.split('\n').slice(0, -1) : splitLines(`${text}\n`);
  const lines = rest.map((line) => (line !== '' || isBlank ? prefix + line : line));
  return (isFirst ? prefix : '') + [head, ...lines].join('\n');
}

function tojson(value: Value, args: Value[], kwargs: Kwargs): string {
  const names = ['ensure_ascii', 'indent', 'separators', 'sort_keys'];
  for (const name of kwargs.keys()) {
    if (!names.includes(name)) throw new TemplateError(`tojson() got an unknown argument '${name}'`);
  }
  const [ensureAscii, width, separators, sortKeys] = names.map((name, i) => args[i] ?? kwargs.get(name) ?? null);
  const pair = Array.isArray(separators) ? separators.map((one) => textArgument(one, 'tojson')) : [];
  return toJson(value, {
    indent:
      typeof width === 'string'
        ? width
        : typeof width === 'number'
          ? ' '.repeat(Math.max(0, Math.min(width, INDENT_MAX)))
          : undefined,
    separators: [pair[0] ?? (width === null ? ', ' : ','), pair[1] ?? ': '],
    ensureAscii: isTrue(ensureAscii),
    sortKeys: isTrue(sortKeys),
  });
}

function foldCase(value: Value, isSensitive: boolean): Value {
  return typeof value === 'string' && !isSensitive ? value.toLowerCase() : value;
}

function sort(value: Value, args: Value[], kwargs: Kwargs, getMember: GetMember): Value[] {
  const isReverse = isTrue(args[0] ?? kwargs.get('reverse'));
  const isSensitive = isTrue(args[1] ?? kwargs.get('case_sensitive'));
  const attribute = args[2] ?? kwargs.get('attribute');
  const keyOf = (item: Value): Value =>
    foldCase(attribute === undefined || attribute === null ? item : memberAt(item, attribute, getMember), isSensitive);
  return [...iterate(value)].sort((a, b) => (isReverse ? compare(keyOf(b), keyOf(a)) : compare(keyOf(a), keyOf(b))));
}

function dictsort(value: Value, args: Value[], kwargs: Kwargs): Value {
  if (!isDict(value)) throw new TemplateError(`dictsort of ${typeName(value)}`);
  const isSensitive = isTrue(args[0] ?? kwargs.get('case_sensitive'));
  const at = (args[1] ?? kwargs.get('by') ?? 'key') === 'value' ? 1 : 0;
  const sign = isTrue(args[2] ?? kwargs.get('reverse')) ? -1 : 1;
  const keyOf = (pair: Value): Value => foldCase(iterate(pair)[at], isSensitive);
  return itemsOf(value).sort((a, b) => sign * compare(keyOf(a), keyOf(b)));
}

/** select, reject, selectattr, rejectattr: `(test, argument)`, after the attribute's name for the latter two. */
function select(wanted: boolean, hasAttribute: boolean, getMember: GetMember): Filter {
  return (value, args) => {
    if (!isTrue(value)) return []; // None, too
    const [attribute, ...rest] = hasAttribute ? args : [undefined, ...args];
    const test = rest.length > 0 ? testOf(rest[0]) : isTrue;
    return iterate(value).filter((item) => {
      spendFor(item);
      const subject = hasAttribute ? memberAt(item, attribute, getMember) : item;
      return test(subject, rest[1]) === wanted;
    });
  };
}

/** The first of the largest (sign 1) or smallest (sign -1). */
function extreme(sign: number): Filter {
  return (value) =>
    iterate(value).reduce(
      (best: Value, item, i) =>
        i === 0 || sign * compare(foldCase(item, false), foldCase(best, false)) > 0 ? item : best,
      undefined,
    );
}

function round(value: Value, args: Value[], kwargs: Kwargs): Value {
  const number = numberOf(value);
  const digits = numberOf(args[0] ?? kwargs.get('precision') ?? 0) ?? 0;
  if (number === undefined) throw new TemplateError(`round of ${typeName(value)}`);
  if (digits !== 0) throw new TemplateError('round() to digits is not supported');
  const method = args[1] ?? kwargs.get('method') ?? 'common';
  if (method === 'ceil') return new Float(Math.ceil(number));
  if (method === 'floor') return new Float(Math.floor(number));
  const low = Math.floor(number);
  const rest = number - low;
  return new Float(rest < 0.5 || (rest === 0.5 && low % 2 === 0) ? low : low + 1); // halves go to the even one
}

function unique(value: Value): Value[] {
  const seen: Value[] = [];
  return iterate(value).filter((item) => {
    const key = foldCase(item, false);
    if (seen.some((one) => isEqual(one, key))) return false;
    seen.push(key);
    return true;
  });
}

const HTML: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', "'": '&#39;', '"': '&#34;' };
const escapeHtml: Filter = (value) => toText(value).replace(/[&<>'"\p{Cs}]/gu, (c) => HTML[plain(c)] ?? c);

const fallbackFor: Filter = (value, args, kwargs) => {
  const isEmpty = isTrue(args[1] ?? kwargs.get('boolean')) ? !isTrue(value) : value === undefined;
  return isEmpty ? (args.length > 0 ? args[0] : kwargs.has('default_value') ? kwargs.get('default_value') : '') : value;
};

/** All filters, over a renderer's way to read members. */
export function makeFilters(getMember: GetMember): ReadonlyMap<string, Filter> {
  return new Map<string, Filter>([
    ['abs', (value) => (value instanceof Float ? new Float(Math.abs(value.value)) : Math.abs(numberOf(value) ?? NaN))],
    ['attr', (value, [name]) => (value instanceof Attributes ? getMember(value, name) : undefined)],
    ['capitalize', (value) => capitalize(toText(value))],
    ['count', lengthOf],
    ['length', lengthOf],
    ['default', fallbackFor],
    ['d', fallbackFor],
    ['dictsort', dictsort],
    ['e', escapeHtml],
    ['escape', escapeHtml],
    ['first', (value) => iterate(value)[0]],
    ['last', (value) => iterate(value).at(-1)],
    ['float', (value, args, kwargs) => toFloat(value, args[0] ?? kwargs.get('default') ?? new Float(0))],
    ['int', (value, args, kwargs) => toInt(value, args[0] ?? kwargs.get('default') ?? 0)],
    ['indent', (value, args, kwargs) => indent(toText(value), args, kwargs)],
    ['items', (value) => (isDict(value) ? itemsOf(value) : iterateNothing(value))],
    ['join', (value, args, kwargs) => join(value, args, kwargs, getMember)],
    ['list', (value) => [...iterate(value)]],
    ['lower', (value) => toText(value).toLowerCase()],
    ['upper', (value) => toText(value).toUpperCase()],
    ['map', (value, args, kwargs) => map(value, args, kwargs, getMember)],
    ['max', extreme(1)],
    ['min', extreme(-1)],
    ['reject', select(false, false, getMember)],
    ['rejectattr', select(false, true, getMember)],
    ['select', select(true, false, getMember)],
    ['selectattr', select(true, true, getMember)],
    [
      'replace',
      (value, [from, to, count], kwargs) =>
        replaceText(toText(value), toText(from), toText(to), numberOf(count ?? kwargs.get('count')) ?? -1),
    ],
    [
      'reverse',
      (value) => (typeof value === 'string' ? Array.from(value).reverse().join('') : [...iterate(value)].reverse()),
    ],
    ['round', round],
    ['safe', (value) => value],
    ['sort', (value, args, kwargs) => sort(value, args, kwargs, getMember)],
    ['string', toText],
    ['sum', (value) => iterate(value).reduce((sum: number, item) => sum + (numberOf(item) ?? NaN), 0)],
    ['title', (value) => toText(value).replace(/[^-\s({[<]+/gu, capitalize)],
    ['tojson', tojson],
    ['trim', (value, args, kwargs) => strip(toText(value), args[0] ?? kwargs.get('chars'), 'both')],
    ['unique', unique],
    ['wordcount', (value) => (toText(value).match(/[\p{L}\p{N}_]+/gu) ?? []).length],
  ]);
}

function iterateNothing(value: Value): Value[] {
  if (value === undefined) return [];
  throw new TemplateError(`items of ${typeName(value)}`);
}

function map(value: Value, args: Value[], kwargs: Kwargs, getMember: GetMember): Value[] {
  if (!isTrue(value)) return [];
  const attribute = kwargs.get('attribute');
  if (attribute !== undefined) {
    return iterate(value).map((item) => memberAt(item, attribute, getMember) ?? kwargs.get('default'));
  }
  const [name, ...rest] = args;
  const filter = makeFilters(getMember).get(textArgument(name, 'map'));
  if (!filter) throw new TemplateError(`filter '${toText(name)}' is not supported`);
  return iterate(value).map((item) => {
    spendFor(item);
    const result = filter(item, rest, kwargs);
    spendFor(result);
    return result;
  });
}
