// A command: its words, its options, and what it does.

import {
  COMMON_OPTIONS,
  checkPositionals,
  parseOptions,
  type OptionTable,
  type Positional,
  type Values,
} from './args.js';
import type { Io } from './io.js';
import type { Style } from './style.js';
import { pad, wrap } from './text.js';

export interface CommandContext<T extends OptionTable> {
  options: Values<T & typeof COMMON_OPTIONS>;
  /** As many as the command has. */
  positionals: string[];
  io: Io;
}

export interface Command {
  readonly name: string;
  readonly summary: string;
  /** All that are parsed, hidden ones too. */
  readonly options: OptionTable;
  readonly positionals: readonly Positional[];
  /** Those that are wanted beside the options that were given. */
  positionalsBeside(given: ReadonlySet<string>): readonly Positional[];
  help(style: Style, columns: number): string[];
  /** Returns the exit code. */
  run(args: string[], io: Io): Promise<number>;
}

interface CommandDefinition<T extends OptionTable> {
  name: string;
  summary: string;
  /** After `openlora name`. */
  usage: string;
  /** What the summary doesn't say. */
  details?: string;
  /** All are required; default none. */
  positionals?: readonly Positional[];
  /** Those of an option that changes what is wanted. */
  positionalsOf?: { option: keyof T & string; positionals: readonly Positional[] };
  /** What to try after an argument too many. */
  surplusHint?: string;
  options: T;
  /** Whether `--json` makes no sense here. */
  isTextOnly?: boolean;
  examples: string[];
  run(context: CommandContext<T>): Promise<number>;
}

export function defineCommand<const T extends OptionTable>(definition: CommandDefinition<T>): Command {
  const options = { ...definition.options, ...COMMON_OPTIONS };
  const shown: OptionTable = definition.isTextOnly
    ? { ...options, json: { ...COMMON_OPTIONS.json, isHidden: true } }
    : options;
  const wanted = definition.positionals ?? [];
  const beside = (given: ReadonlySet<string>) => {
    const other = definition.positionalsOf;
    return other && given.has(other.option) ? other.positionals : wanted;
  };
  const help = (style: Style, columns: number) => helpLines(definition, shown, style, columns);
  return {
    name: definition.name,
    summary: definition.summary,
    options: shown,
    positionals: wanted,
    positionalsBeside: beside,
    help,
    async run(args, io) {
      const { values, positionals } = parseOptions(args, options);
      if (values.help) {
        for (const line of help(io.stdout.style, io.stdout.columns)) io.stdout.line(line);
        return 0;
      }
      const given = new Set(Object.keys(options).filter((name) => isGiven(values[name])));
      checkPositionals(definition.name, positionals, beside(given), definition.surplusHint);
      return await definition.run({ options: values, positionals, io });
    },
  };
}

const isGiven = (value: unknown) => (Array.isArray(value) ? value.length > 0 : value !== undefined && value !== false);

function helpLines<T extends OptionTable>(
  definition: CommandDefinition<T>,
  options: OptionTable,
  style: Style,
  columns: number,
): string[] {
  const width = Math.min(columns, 100);
  const shown = Object.entries(options).filter(([, option]) => !option.isHidden);
  const names = shown.map(([name, option]) => {
    const short = option.short ? `-${option.short}, ` : '';
    return `${short}--${name}${option.kind === 'flag' ? '' : ` ${option.value}`}`;
  });
  const nameWidth = Math.max(...names.map((name) => name.length)) + 4;
  const lines = [
    `${definition.summary[0]!.toUpperCase()}${definition.summary.slice(1)}.`,
    '',
    `${style.bold('Usage:')} openlora ${definition.name} ${definition.usage}`.trimEnd(),
  ];
  if (definition.details) lines.push('', ...wrap(definition.details, width));
  lines.push('', style.bold('Options:'));
  shown.forEach(([, option], i) => {
    const [first, ...rest] = wrap(option.summary, Math.max(20, width - nameWidth));
    lines.push(
      `  ${style.cyan(pad(names[i]!, nameWidth - 2))}${first}`,
      ...rest.map((text) => ' '.repeat(nameWidth) + text),
    );
  });
  if (definition.examples.length > 0) {
    lines.push('', style.bold('Examples:'), ...definition.examples.map((example) => `  ${style.dim('$')} ${example}`));
  }
  return lines;
}
