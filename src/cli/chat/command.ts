// `openlora chat`: a conversation on the terminal, with adapters that can be changed between turns.

import {
  BASE_OPTIONS,
  SAMPLING_OPTIONS,
  openBase,
  parseAdapters,
  registerAll,
  requireFolder,
  samplingOf,
} from '../base-options.js';
import { defineCommand } from '../command.js';
import { EXIT_FAILURE, EXIT_OK, UsageError, printError, reportOf, throwIfInterrupted } from '../errors.js';
import type { Io } from '../io.js';
import { cut, oneLine } from '../text.js';
import { History, historyPath } from './history.js';
import { LineReader } from './line-reader.js';
import { ChatSession } from './session.js';
import { completeSlash, isSlash, runSlash } from './slash.js';

export const chat = defineCommand({
  name: 'chat',
  summary: 'talk with a base and its adapters',
  usage: '--base DIR [--adapter DIR …]',
  details:
    'Needs a base or an adapter with a chat template. The first --adapter answers; /adapter changes it between turns, /help shows the rest. From a pipe, each line is a turn.',
  isTextOnly: true,
  options: {
    ...BASE_OPTIONS,
    system: { kind: 'text', value: 'TEXT', short: 's', summary: 'system message' },
    'no-history': { kind: 'flag', summary: 'neither read nor write the lines of earlier sessions' },
    ...SAMPLING_OPTIONS,
  },
  examples: [
    'openlora chat --base ./llama-instruct',
    'openlora chat --base ./qwen --adapter ./polite --adapter ./terse',
    'openlora chat --base ./qwen < questions.txt',
  ],
  async run({ options, io }) {
    if (options.json) throw new UsageError('chat has no --json', 'openlora generate --chat --prompt … --json');
    const folder = requireFolder('--base', options.base);
    const adapters = parseAdapters(options.adapter);
    const base = await openBase(folder, options, io);
    try {
      await registerAll(base, folder, adapters, io);
      const session = new ChatSession(base, folder, samplingOf(options), io);
      session.adapter = adapters[0]?.id;
      session.system = options.system;
      session.checkTemplate();
      return await converse(session, !options['no-history'], io);
    } finally {
      await base.dispose();
    }
  },
});

/** Of an adapter's name. */
const PROMPT_COLUMNS = 24;

async function converse(session: ChatSession, wantsHistory: boolean, io: Io): Promise<number> {
  const { stdin, stdout, stderr, signal } = io;
  const isTty = stdin.isTTY === true && stdout.isTty;
  const history = isTty && wantsHistory ? new History(historyPath(io.env)) : undefined;
  const reader = new LineReader(io, isTty, {
    history,
    complete: (line) => completeSlash(line, session),
    onInterrupt: () => session.stop(),
  });
  const close = () => reader.close();
  signal.addEventListener('abort', close, { once: true });
  if (isTty) session.greet();
  if (history?.problem !== undefined) stderr.line(stdout.style.dim(`no history: ${history.problem}`));
  let hasFailed = false;
  try {
    for (;;) {
      const who = cut(oneLine(session.adapter ?? 'base'), PROMPT_COLUMNS);
      const text = await reader.read(`${stdout.style.cyan(who)}${stdout.style.bold('> ')}`);
      if (text === undefined || signal.aborted) break;
      try {
        if (!isSlash(text)) await session.answer(text);
        else if (!(await runSlash(text, session))) break;
      } catch (error) {
        // A failed turn is told, and the conversation goes on.
        if (signal.aborted) break;
        hasFailed = true;
        printError(stderr, reportOf(error));
      }
    }
  } finally {
    signal.removeEventListener('abort', close);
    reader.close();
  }
  throwIfInterrupted(signal);
  return hasFailed && !isTty ? EXIT_FAILURE : EXIT_OK;
}
