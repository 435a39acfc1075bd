// From words to a command, from an outcome to an exit code.

import type { Command } from './command.js';
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

/** Loaded when they are named: `openlora --help` loads no SDK and no hub client. */
const COMMANDS: Record<string, { summary: string; isHidden?: boolean; load(): Promise<Command> }> = {
  demo: {
    summary: 'serve 64 mixed requests for twelve adapters on one base, live',
    load: async () => (await import('./demo/command.js')).demo,
  },
  generate: {
    summary: 'continue a prompt, with one adapter or several at once',
    load: async () => (await import('./generate.js')).generate,
  },
  chat: { summary: 'talk with a base and its adapters', load: async () => (await import('./chat.js')).chat },
  inspect: {
    summary: 'say what is in a base or an adapter folder, and whether it fits',
    load: async () => (await import('./inspect.js')).inspect,
  },
  doctor: {
    summary: 'say what this machine offers and which binary runs',
    load: async () => (await import('./doctor.js')).doctor,
  },
  pull: {
    summary: 'download a base or an adapter from the Hugging Face hub',
    load: async () => (await import('./pull/command.js')).pull,
  },
  build: {
    summary: 'build the native addon from the sources in the package',
    load: async () => (await import('./build.js')).build,
  },
  'demo-memory': { summary: '', isHidden: true, load: async () => (await import('./demo/memory-child.js')).demoMemory },
};

const listed = Object.entries(COMMANDS).filter(([, entry]) => !entry.isHidden);

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
    const report = reportOf(error);
    const isUsage = error instanceof UsageError;
    if (argv.includes('--json')) json(io, { error: report });
    printError(io.stderr, isUsage && report.hint === undefined ? { ...report, hint: usageHint(name) } : report);
    if (report.code === 'ERR_UNEXPECTED' && io.env.OPENLORA_DEBUG && error instanceof Error)
      io.stderr.line(error.stack);
    return isUsage ? EXIT_USAGE : EXIT_FAILURE;
  }
}

function find(name: string): (typeof COMMANDS)[string] {
  if (Object.hasOwn(COMMANDS, name)) return COMMANDS[name]!;
  const names = listed.map(([known]) => known);
  const guess = nearest(name, names);
  throw new UsageError(`unknown command '${name}'`, guess ? `openlora ${guess}` : `one of ${names.join(', ')}`);
}

function usageHint(name: string | undefined): string {
  return name !== undefined && Object.hasOwn(COMMANDS, name) ? `openlora ${name} --help` : 'openlora --help';
}

function printHelp(io: Io): void {
  const { stdout } = io;
  const { style } = stdout;
  const width = Math.max(...listed.map(([name]) => name.length)) + 4;
  stdout.line(
    `${style.bold('openlora')} ${style.dim(packageVersion())}: thousands of LoRA adapters on one shared base, in your Node process.`,
  );
  stdout.line();
  stdout.line(`${style.bold('Usage:')} openlora COMMAND [options]`);
  stdout.line();
  stdout.line(style.bold('Commands:'));
  for (const [name, { summary }] of listed) stdout.line(`  ${style.cyan(pad(name, width - 2))}${summary}`);
  stdout.line();
  stdout.line(style.bold('Start here:'));
  stdout.line(`  ${style.dim('$')} openlora demo`);
  stdout.line(`  ${style.dim('$')} openlora COMMAND --help`);
}
