// Values of a chat template, with Python's meaning of truth, equality, text and JSON. A value may hold another many times
// over, so that walking through it takes far longer than making it did: every walk spends.

import { spend, spendFor } from './chat-template-budget.js';

import { hasMark, plain } from './chat-template-marks.js';

/** A template that can't be rendered as Jinja2 would render it; ERR_CHAT_TEMPLATE carries its message. */
export class TemplateError extends Error {}

/** A Python float: 1.0 is printed so, and is no int. */
export class Float {
  constructor(readonly value: number) {}
}

/** A Python tuple: a list but in print and in comparisons. */
export class Tuple extends Array<Value> {}

/** `namespace()`, `loop`: attributes, and no methods. */
export class Attributes {
  constructor(readonly map: Map<string, Value>) {}
}

export type Kwargs = Map<string, Value>;
export type Callable = (args: Value[], kwargs: Kwargs) => Value;

/** null is None; undefined is Jinja's Undefined; an integral number is an int. */
export type Value = null | undefined | boolean | number | string | Float | Value[] | Dict | Attributes | Callable;
export type Dict = Map<Value, Value>;

export function isDict(value: Value): value is Dict {
  return value instanceof Map;
}

/** Plain data, as JSON would carry it: undefined members are left out. */
export function fromJs(input: unknown): Value {
  switch (typeof input) {
    case 'undefined':
    case 'boolean':
      return input;
    case 'string':
      // A lone surrogate is no character: it becomes U+FFFD, as UTF-8 encoders write it.
      return input.toWellFormed();
    case 'number':
      return Number.isSafeInteger(input) && !Object.is(input, -0) ? input : new Float(input);
    case 'object':
      if (input === null) return null;
      if (Array.isArray(input)) return input.map((item: unknown) => fromJs(item) ?? null);
      return new Map(
        Object.entries(input)
          .filter(([, value]) => value !== undefined)
          .map(([key, value]): [Value, Value] => [key.toWellFormed(), fromJs(value)]),
      );
    default:
      throw new TemplateError(`a ${typeof input} can't be given to a chat template`);
  }
}

/** The type's name, in Python's words. */
export function typeName(value: Value): string {
  if (value === null) return 'None';
  if (value === undefined) return 'undefined';
  if (typeof value === 'string') return 'str';
  if (typeof value === 'boolean') return 'bool';
  if (typeof value === 'number') return 'int';
  if (typeof value === 'function') return 'function';
  if (value instanceof Float) return 'float';
  if (value instanceof Attributes) return 'namespace';
  if (value instanceof Tuple) return 'tuple';
  return Array.isArray(value) ? 'list' : 'dict';
}

export function isTrue(value: Value): boolean {
  if (value instanceof Float) return value.value !== 0;
  if (Array.isArray(value)) return value.length > 0;
  if (isDict(value)) return value.size > 0;
  return Boolean(value);
}

/** int, float or bool as a number; undefined for anything else. */
export function numberOf(value: Value): number | undefined {
  if (typeof value === 'number') return value;
  if (typeof value === 'boolean') return Number(value);
  return value instanceof Float ? value.value : undefined;
}

export function isEqual(a: Value, b: Value): boolean {
  spend(1);
  const x = numberOf(a);
  if (x !== undefined) return x === numberOf(b);
  if (a instanceof Tuple !== b instanceof Tuple) return false;
  if (Array.isArray(a)) return Array.isArray(b) && a.length === b.length && a.every((item, i) => isEqual(item, b[i]));
  if (isDict(a)) {
    return isDict(b) && a.size === b.size && [...a].every(([key, item]) => b.has(key) && isEqual(item, b.get(key)));
  }
  spendFor(a);
  if (typeof a === 'string' && typeof b === 'string') return isSameText(a, b);
  return a === b;
}

/** Marked characters are the same as their unmarked selves. */
function isSameText(a: string, b: string): boolean {
  return a === b || ((hasMark(a) || hasMark(b)) && plain(a) === plain(b));
}

/** The pairs of a dict, as `items()` gives them. */
export function itemsOf(dict: Dict): Value[] {
  return Array.from(dict, (pair) => Tuple.from(pair));
}

/** Negative, zero or positive. Throws where Python has no order. */
export function compare(a: Value, b: Value): number {
  const [x, y] = [numberOf(a), numberOf(b)];
  if (x !== undefined && y !== undefined) return x - y;
  spend(1);
  if (typeof a === 'string' && typeof b === 'string') return compareText(a, b);
  if (Array.isArray(a) && Array.isArray(b)) {
    for (let i = 0; i < Math.min(a.length, b.length); i++) if (!isEqual(a[i], b[i])) return compare(a[i], b[i]);
    return a.length - b.length;
  }
  throw new TemplateError(`${typeName(a)} and ${typeName(b)} can't be ordered`);
}

/** By code points, where JS compares UTF-16 units. */
export function compareText(a: string, b: string): number {
  spendFor(a);
  spendFor(b);
  const [left, right] = [Array.from(plain(a)), Array.from(plain(b))];
  for (let i = 0; i < Math.min(left.length, right.length); i++) {
    const difference = (left[i]?.codePointAt(0) ?? 0) - (right[i]?.codePointAt(0) ?? 0);
    if (difference !== 0) return difference;
  }
  return left.length - right.length;
}

/** What a `for` goes through. */
export function iterate(value: Value): Value[] {
  if (Array.isArray(value)) return value;
  if (typeof value === 'string') return Array.from(value);
  if (isDict(value)) return [...value.keys()];
  if (value === undefined) return [];
  throw new TemplateError(`${typeName(value)} is not iterable`);
}

/** repr() of a Python float. */
export function floatText(value: number): string {
  if (Number.isNaN(value)) return 'nan';
  if (!Number.isFinite(value)) return value > 0 ? 'inf' : '-inf';
  if (Object.is(value, -0)) return '-0.0';
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-4 || size >= 1e16)) {
    return value.toExponential().replace(/e([+-])(\d)$/, 'e$10$2');
  }
  const text = value.toString();
  return text.includes('.') ? text : `${text}.0`;
}

/** str() */
export function toText(value: Value): string {
  if (typeof value === 'string') return value;
  return value === undefined ? '' : repr(value);
}

/** repr() */
export function repr(value: Value): string {
  spend(1);
  if (value === null) return 'None';
  if (value === undefined) return 'Undefined';
  if (value === true) return 'True';
  if (value === false) return 'False';
  if (typeof value === 'number') return String(value);
  if (typeof value === 'string') return reprText(value);
  if (value instanceof Float) return floatText(value.value);
  if (Array.isArray(value)) {
    const items = Array.from(value, repr).join(', ');
    return value instanceof Tuple ? `(${items}${value.length === 1 ? ',' : ''})` : `[${items}]`;
  }
  if (isDict(value)) return `{${[...value].map(([key, item]) => `${repr(key)}: ${repr(item)}`).join(', ')}}`;
  throw new TemplateError(`a ${typeName(value)} can't be printed`);
}

function reprText(text: string): string {
  spendFor(text);
  const quote = text.includes("'") && !text.includes('"') ? '"' : "'";
  const escaped = text.replace(/[\\'"\p{Cc}\p{Cf}\p{Co}\p{Cn}\p{Zl}\p{Zp}\p{Zs}]/gu, (character) => {
    if (character === ' ') return character;
    if (character === '\\' || character === quote) return `\\${character}`;
    const named: Record<string, string> = { '\n': '\\n', '\r': '\\r', '\t': '\\t', "'": "'", '"': '"' };
    const code = character.codePointAt(0) ?? 0;
    const hex = code.toString(16);
    if (code > 0xffff) return named[character] ?? `\\U${hex.padStart(8, '0')}`;
    return named[character] ?? (code > 0xff ? `\\u${hex.padStart(4, '0')}` : `\\x${hex.padStart(2, '0')}`);
  });
  return quote + escaped + quote;
}

export interface JsonStyle {
  /** Text of one level; undefined: all on one line. */
  indent: string | undefined;
  separators: [item: string, key: string];
  ensureAscii: boolean;
  sortKeys: boolean;
}

/** json.dumps() */
export function toJson(value: Value, style: JsonStyle, depth = 0): string {
  spend(1);
  if (value === null) return 'null';
  if (typeof value === 'boolean' || typeof value === 'number') return String(value);
  if (typeof value === 'string') return jsonText(value, style);
  if (value instanceof Float) {
    const { value: x } = value;
    return Number.isNaN(x) ? 'NaN' : Number.isFinite(x) ? floatText(x) : x > 0 ? 'Infinity' : '-Infinity';
  }
  const [itemSeparator, keySeparator] = style.separators;
  const join = (open: string, items: string[], close: string): string => {
    if (items.length === 0 || style.indent === undefined) return open + items.join(itemSeparator) + close;
    const line = `\n${style.indent.repeat(depth + 1)}`;
    return `${open}${line}${items.join(itemSeparator + line)}\n${style.indent.repeat(depth)}${close}`;
  };
  if (Array.isArray(value))
    return join(
      '[',
      Array.from(value, (item) => toJson(item, style, depth + 1)),
      ']',
    );
  if (!isDict(value)) throw new TemplateError(`${typeName(value)} is not JSON serializable`);
  const entries = Array.from(value, ([key, item]): [string, Value] => [jsonKey(key), item]);
  if (style.sortKeys) entries.sort(([a], [b]) => compareText(a, b));
  const items = entries.map(([key, item]) => jsonText(key, style) + keySeparator + toJson(item, style, depth + 1));
  return join('{', items, '}');
}

function jsonKey(key: Value): string {
  if (typeof key === 'string') return key;
  if (key === null || typeof key === 'boolean' || typeof key === 'number') return String(key);
  if (key instanceof Float) return floatText(key.value);
  throw new TemplateError(`a ${typeName(key)} is no key of JSON`);
}

function jsonText(text: string, style: JsonStyle): string {
  spendFor(text);
  const quoted = `"${text.replace(/["\\\p{Cc}]/gu, (character) => JSON.stringify(character).slice(1, -1))}"`;
  if (!style.ensureAscii) return quoted;
  const escape = (unit: string): string => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`;
  return quoted.replace(/[^ -~\p{Cs}]/gu, (character) => character.split('').map(escape).join(''));
}
