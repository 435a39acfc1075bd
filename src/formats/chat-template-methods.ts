// Methods of Python's str, dict and list, as templates call them. What is not here is refused by name.

import { plain, splitText } from './chat-template-marks.js';
import {
  type Callable,
  type Dict,
  type Kwargs,
  TemplateError,
  type Value,
  isDict,
  isEqual,
  itemsOf,
  typeName,
} from './chat-template-value.js';

/** Python's whitespace: unlike JS's, it has 0x1C–0x1F and 0x85, and has not U+FEFF. */
const SPACE = '[\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]';
const SPACES_START = new RegExp(`^${SPACE}+`);
const SPACES_END = new RegExp(`${SPACE}+$`);

export type Sides = 'both' | 'left' | 'right';

/** `chars`: any of these characters, not a prefix; None or undefined: whitespace. */
export function strip(text: string, chars: Value, sides: Sides): string {
  if (chars === null || chars === undefined) {
    // A trailing run is found from the end: the pattern alone would be quadratic on inner runs.
    let end = text.length;
    if (sides !== 'left') while (end > 0 && SPACES_END.test(text[end - 1] ?? '')) end--;
    const kept = text.slice(0, end);
    return sides === 'right' ? kept : kept.replace(SPACES_START, '');
  }
  const set = new Set(plain(textArgument(chars, 'strip')));
  const characters = Array.from(text);
  const isCut = (i: number): boolean => set.has(plain(characters[i] ?? ''));
  let start = 0;
  let end = characters.length;
  if (sides !== 'right') while (start < end && isCut(start)) start++;
  if (sides !== 'left') while (end > start && isCut(end - 1)) end--;
  return characters.slice(start, end).join('');
}

export function textArgument(value: Value, where: string): string {
  if (typeof value !== 'string') throw new TemplateError(`${where}() got ${typeName(value)}, wanted str`);
  return value;
}

function countArgument(value: Value, where: string): number {
  if (typeof value !== 'number') throw new TemplateError(`${where}() got ${typeName(value)}, wanted int`);
  return value;
}

export function replaceText(text: string, from: string, to: string, count: number): string {
  if (count < 0) {
    return from === '' ? [...['', ...Array.from(text)].map((c) => c + to)].join('') : splitText(text, from).join(to);
  }
  if (from === '') throw new TemplateError('replace() of an empty text with a count is not supported');
  const parts = splitText(text, from);
  const head = parts.slice(0, count + 1).join(to);
  return parts.length > count + 1 ? head + from + parts.slice(count + 1).join(from) : head;
}

/** str.capitalize() */
export function capitalize(text: string): string {
  const [first = '', ...rest] = Array.from(text);
  return first.toUpperCase() + rest.join('').toLowerCase();
}

function split(text: string, separator: Value, limit: number, isFromRight: boolean): string[] {
  if (separator === null || separator === undefined) {
    const words = strip(text, null, 'both')
      .split(new RegExp(`${SPACE}+`))
      .filter((word) => word !== '');
    if (limit < 0 || words.length <= limit + 1) return words;
    throw new TemplateError('split() by whitespace with a limit is not supported');
  }
  const by = textArgument(separator, 'split');
  if (by === '') throw new TemplateError('split() by an empty separator');
  const parts = splitText(text, by);
  if (limit < 0 || parts.length <= limit + 1) return parts;
  const joinCount = parts.length - limit;
  return isFromRight
    ? [parts.slice(0, joinCount).join(by), ...parts.slice(joinCount)]
    : [...parts.slice(0, limit), parts.slice(limit).join(by)];
}

/** What Python takes for the end of a line. */
// eslint-disable-next-line no-control-regex -- these are among them
const LINE_END = /\r\n|[\n-\r\x1c-\x1e\x85\u2028\u2029]/;

/** str.splitlines(), without keepends. */
export function splitLines(text: string): string[] {
  const lines = text.split(LINE_END);
  if (lines.at(-1) === '') lines.pop();
  return lines;
}

function hasAffix(affix: Value, where: string, test: (affix: string) => boolean): boolean {
  return Array.isArray(affix) ? affix.some((one) => test(textArgument(one, where))) : test(textArgument(affix, where));
}

function titleText(text: string): string {
  return text.replace(/\p{L}+/gu, capitalize);
}

type TextMethod = (text: string, args: Value[], kwargs: Kwargs) => Value;

const isWholly =
  (pattern: RegExp): TextMethod =>
  (text) =>
    pattern.test(text);

const TEXT_METHODS = new Map<string, TextMethod>([
  ['upper', (text) => text.toUpperCase()],
  ['lower', (text) => text.toLowerCase()],
  ['title', titleText],
  ['capitalize', capitalize],
  ['strip', (text, [chars]) => strip(text, chars, 'both')],
  ['lstrip', (text, [chars]) => strip(text, chars, 'left')],
  ['rstrip', (text, [chars]) => strip(text, chars, 'right')],
  ['startswith', (text, [affix]) => hasAffix(affix, 'startswith', (a) => plain(text).startsWith(plain(a)))],
  ['endswith', (text, [affix]) => hasAffix(affix, 'endswith', (a) => plain(text).endsWith(plain(a)))],
  [
    'removeprefix',
    (text, [a]) => {
      const prefix = textArgument(a, 'removeprefix');
      return plain(text).startsWith(plain(prefix)) ? text.slice(prefix.length) : text;
    },
  ],
  [
    'removesuffix',
    (text, [a]) => {
      const suffix = textArgument(a, 'removesuffix');
      return suffix !== '' && plain(text).endsWith(plain(suffix)) ? text.slice(0, -suffix.length) : text;
    },
  ],
  ['split', (text, args, kwargs) => split(text, ...splitArguments(args, kwargs), false)],
  ['rsplit', (text, args, kwargs) => split(text, ...splitArguments(args, kwargs), true)],
  ['splitlines', splitLines],
  [
    'replace',
    (text, [from, to, count], kwargs) =>
      replaceText(
        text,
        textArgument(from, 'replace'),
        textArgument(to, 'replace'),
        countArgument(count ?? kwargs.get('count') ?? -1, 'replace'),
      ),
  ],
  [
    'join',
    (text, [list]) => (Array.isArray(list) ? list.map((one) => textArgument(one, 'join')).join(text) : undefined),
  ],
  ['count', (text, [part]) => splitText(text, textArgument(part, 'count')).length - 1],
  [
    'find',
    (text, [part]) => {
      const at = plain(text).indexOf(plain(textArgument(part, 'find')));
      return at < 0 ? -1 : Array.from(text.slice(0, at)).length;
    },
  ],
  ['isdigit', isWholly(/^\p{Nd}+$/u)],
  ['isalpha', isWholly(/^\p{L}+$/u)],
  ['isalnum', isWholly(/^[\p{L}\p{N}]+$/u)],
  ['isspace', isWholly(new RegExp(`^${SPACE}+$`))],
]);

function splitArguments(args: Value[], kwargs: Kwargs): [Value, number] {
  return [args[0] ?? kwargs.get('sep'), countArgument(args[1] ?? kwargs.get('maxsplit') ?? -1, 'split')];
}

const DICT_METHODS = new Map<string, (dict: Dict, args: Value[]) => Value>([
  ['get', (dict, [key, fallback]) => (dict.has(key) ? dict.get(key) : (fallback ?? null))],
  ['items', itemsOf],
  ['keys', (dict) => [...dict.keys()]],
  ['values', (dict) => [...dict.values()]],
  ['copy', (dict) => new Map(dict)],
]);

/** Methods that change their object; in transformers' sandbox they raise. */
const DICT_MUTATORS = new Set(['clear', 'pop', 'popitem', 'setdefault', 'update']);
const LIST_MUTATORS = new Set(['append', 'clear', 'extend', 'insert', 'pop', 'remove', 'reverse', 'sort']);

/** The bound method `name` of `value`; undefined where its type has none by that name. */
export function methodOf(value: Value, name: string): Callable | undefined {
  if (typeof value === 'string') {
    const method = TEXT_METHODS.get(name);
    return method && ((args, kwargs) => method(value, args, kwargs));
  }
  const mutators = isDict(value) ? DICT_MUTATORS : Array.isArray(value) ? LIST_MUTATORS : undefined;
  if (mutators?.has(name)) {
    return () => {
      throw new TemplateError(`${typeName(value)}.${name}() would change its object, which templates may not`);
    };
  }
  if (isDict(value)) {
    const method = DICT_METHODS.get(name);
    return method && ((args) => method(value, args));
  }
  if (Array.isArray(value)) {
    if (name === 'count') return ([item]) => value.filter((one) => isEqual(one, item)).length;
    if (name === 'index') return ([item]) => value.findIndex((one) => isEqual(one, item));
  }
  return undefined;
}
