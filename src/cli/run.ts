// From words to a command, from an outcome to an exit code.

import { COMMANDS, LISTED } from './commands.js';
import {
  EXIT_FAILURE,
  EXIT_INTERRUPTED,
  EXIT_OK,
  EXIT_USAGE,
  Interrupted,
  UsageError,
  printError,
  reportOf,
} from './errors.js';
import { json, type Io } from './io.js';
import { nearest, pad } from './text.js';
import { packageVersion } from '../native/package-root.js';

/** Runs one command line; never throws. `argv` has neither node nor the script. */
export async function run(argv: string[], io: Io): Promise<number> {
  const [name, ...rest] = argv;
  try {
    if (name === undefined || name === '--help' || name === '-h' || (name === 'help' && rest.length === 0)) {
      printHelp(io);
      return name === undefined ? EXIT_USAGE : EXIT_OK;
    }
    if (name === '--version' || name === '-v' || name === '-V') {
      io.stdout.line(packageVersion());
      return EXIT_OK;
    }
    if (name === 'help') return await (await find(rest[0]!).load()).run(['--help'], io);
    if (name.startsWith('-')) throw new UsageError(`unknown option ${name}`, 'openlora --help');
    return await (await find(name).load()).run(rest, io);
  } catch (error) {
    if (error instanceof Interrupted || io.signal.aborted) return EXIT_INTERRUPTED;
    const isUsage = error instanceof UsageError;
    const report = reportOf(
      isUsage && error.hint === undefined ? new UsageError(error.message, usageHint(name)) : error,
    );
    if (argv.includes('--json')) json(io, { error: report });
    printError(io.stderr, report);
    if (report.code === 'ERR_UNEXPECTED' && io.env.OPENLORA_DEBUG && error instanceof Error)
      io.stderr.line(error.stack);
    return isUsage ? EXIT_USAGE : EXIT_FAILURE;
  }
}

function find(name: string): (typeof COMMANDS)[string] {
  if (Object.hasOwn(COMMANDS, name)) return COMMANDS[name]!;
  const names = LISTED.map(([known]) => known);
  const guess = nearest(name, names);
  throw new UsageError(`unknown command '${name}'`, guess ? `openlora ${guess}` : `one of ${names.join(', ')}`);
}

function usageHint(name: string | undefined): string {
  return name !== undefined && Object.hasOwn(COMMANDS, name) ? `openlora ${name} --help` : 'openlora --help';
}

function printHelp(io: Io): void {
  const { stdout } = io;
  const { style } = stdout;
  const width = Math.max(...LISTED.map(([name]) => name.length)) + 4;
  stdout.line(
    `${style.bold('openlora')} ${style.dim(packageVersion())}: thousands of LoRA adapters on one shared base, in your Node process.`,
  );
  stdout.line();
  stdout.line(`${style.bold('Usage:')} openlora COMMAND [options]`);
  stdout.line();
  stdout.line(style.bold('Commands:'));
  for (const [name, { summary }] of LISTED) stdout.line(`  ${style.cyan(pad(name, width - 2))}${summary}`);
  stdout.line();
  stdout.line(style.bold('Start here:'));
  stdout.line(`  ${style.dim('$')} openlora demo`);
  stdout.line(`  ${style.dim('$')} openlora COMMAND --help`);
}
