// One table of options per command: what is parsed, what is checked and what help prints all come from it.

import { parseArgs } from 'node:util';
import { UsageError } from './errors.js';
import { nearest } from './text.js';

interface OptionBase {
  summary: string;
  short?: string;
  /** Left out of help. */
  isHidden?: boolean;
}
/** What a path on the command line should lead to; completion offers these first. */
export type PathKind = 'base' | 'adapter' | 'model' | 'folder' | 'file';

/** What stands on the command line without an option's name. */
export interface Positional {
  /** As help and errors call it. */
  name: string;
  choices?: readonly string[];
  path?: PathKind;
}

interface FlagOption extends OptionBase {
  kind: 'flag';
}
interface TextOption extends OptionBase {
  kind: 'text';
  value: string;
  choices?: readonly string[];
  path?: PathKind;
}
interface ListOption extends OptionBase {
  kind: 'list';
  value: string;
  path?: PathKind;
}
interface NumberOption extends OptionBase {
  kind: 'integer' | 'number';
  value: string;
  min: number;
  max?: number;
}
export type Option = FlagOption | TextOption | ListOption | NumberOption;
export type OptionTable = Readonly<Record<string, Option>>;

type ValueOf<O extends Option> = O extends FlagOption
  ? boolean
  : O extends ListOption
    ? string[]
    : O extends NumberOption
      ? number | undefined
      : O extends { choices: readonly (infer C)[] }
        ? C | undefined
        : string | undefined;
export type Values<T extends OptionTable> = { [K in keyof T]: ValueOf<T[K]> };

/** In every command. */
export const COMMON_OPTIONS = {
  json: { kind: 'flag', summary: 'print JSON on stdout, nothing else' },
  help: { kind: 'flag', short: 'h', summary: 'show this help' },
} as const satisfies OptionTable;

export interface Parsed<T extends OptionTable> {
  values: Values<T>;
  positionals: string[];
}

export function parseOptions<T extends OptionTable>(args: string[], table: T): Parsed<T> {
  const config = Object.fromEntries(
    Object.entries(table).map(([name, option]) => [
      name,
      {
        type: option.kind === 'flag' ? ('boolean' as const) : ('string' as const),
        ...(option.short ? { short: option.short } : {}),
      },
    ]),
  );
  const { tokens } = parseArgs({ args, options: config, strict: false, allowPositionals: true, tokens: true });
  const values: Record<string, boolean | string | number | string[] | undefined> = {};
  for (const [name, option] of Object.entries(table)) {
    if (option.kind === 'flag') values[name] = false;
    else if (option.kind === 'list') values[name] = [];
  }
  const positionals: string[] = [];
  for (const token of tokens) {
    if (token.kind === 'positional') positionals.push(token.value);
    if (token.kind !== 'option') continue;
    const option = Object.hasOwn(table, token.name) ? table[token.name] : undefined;
    if (!option) throw unknownOption(token.rawName, table);
    if (option.kind === 'flag') {
      if (token.value !== undefined)
        throw new UsageError(`${token.rawName} is a flag, it takes no value; got '${token.value}'`);
      values[token.name] = true;
      continue;
    }
    const isOmitted = token.value === undefined || (!token.inlineValue && /^--[a-z]/.test(token.value));
    if (isOmitted) throw new UsageError(`${token.rawName} needs a value: ${token.rawName} ${option.value}`);
    const text = token.value;
    if (option.kind === 'list') (values[token.name] as string[]).push(text);
    else if (values[token.name] !== undefined) throw new UsageError(`${token.rawName} was given twice`);
    else
      values[token.name] =
        option.kind === 'text' ? checkedText(token.rawName, text, option) : checkedNumber(token.rawName, text, option);
  }
  return { values: values as Values<T>, positionals };
}

function unknownOption(rawName: string, table: OptionTable): UsageError {
  const known = Object.keys(table).filter((name) => !table[name]!.isHidden);
  const guess = nearest(rawName.replace(/^-+/, ''), known);
  return new UsageError(
    `unknown option ${rawName}`,
    guess ? `--${guess}` : `one of ${known.map((name) => `--${name}`).join(', ')}`,
  );
}

function checkedText(rawName: string, text: string, option: TextOption): string {
  if (option.choices && !option.choices.includes(text)) {
    const guess = nearest(text, option.choices);
    throw new UsageError(
      `${rawName} is '${text}', wanted one of ${option.choices.join(', ')}`,
      guess && `${rawName} ${guess}`,
    );
  }
  return text;
}

function checkedNumber(rawName: string, text: string, option: NumberOption): number {
  const number = text.trim() === '' ? NaN : Number(text);
  const isRight =
    Number.isFinite(number) &&
    number >= option.min &&
    number <= (option.max ?? Infinity) &&
    (option.kind === 'number' || Number.isSafeInteger(number));
  if (isRight) return number;
  const range = option.max === undefined ? `of at least ${option.min}` : `from ${option.min} to ${option.max}`;
  throw new UsageError(
    `${rawName} is '${text}', wanted ${option.kind === 'integer' ? 'an integer' : 'a number'} ${range}`,
  );
}

/** Checks the positionals against those that a command has. `hint`: what an unexpected one was probably meant as. */
export function checkPositionals(command: string, given: string[], wanted: readonly Positional[], hint?: string): void {
  if (given.length > wanted.length) throw new UsageError(`unexpected argument '${given[wanted.length]}'`, hint);
  wanted.forEach(({ name, choices }, i) => {
    const text = given[i];
    if (text === undefined)
      throw new UsageError(`${name} is missing${choices ? `, wanted one of ${choices.join(', ')}` : ''}`);
    if (choices && !choices.includes(text)) {
      const guess = nearest(text, choices);
      throw new UsageError(
        `${name} is '${text}', wanted one of ${choices.join(', ')}`,
        guess && `openlora ${command} ${guess}`,
      );
    }
  });
}
