// The commands of a chat, one table for what runs, what /help prints and what Tab completes.

import { writeFileSync } from 'node:fs';
import { extname, resolve } from 'node:path';
import { parseAdapters, registerAll } from '../base-options.js';
import { CliError, UsageError } from '../errors.js';
import { completePath, expandHome } from '../paths.js';
import { cut, formatCount, formatMs, nearest, oneLine, pad, shortPath, table, wrap } from '../text.js';
import { rateOf, type ChatSession, type Turn } from './session.js';

export const NO_ADAPTER = 'none';

interface SlashCommand {
  argument?: string;
  summary: string;
  /** What the argument can become. */
  complete?(text: string, session: ChatSession): string[];
  /** Returns whether the chat goes on; default yes. */
  run(session: ChatSession, argument: string): Promise<boolean | void> | boolean | void;
}

const SLASH: Readonly<Record<string, SlashCommand>> = {
  '/adapter': {
    argument: 'NAME',
    summary: "who answers; 'none' is the base alone, ID=DIR registers another one, no NAME lists them",
    complete: (text, session) => [
      ...startingWith(text, [NO_ADAPTER, ...session.adapterIds()]),
      ...(/[./~=]/.test(text) ? folders(text) : []),
    ],
    run: changeAdapter,
  },
  '/system': {
    argument: 'TEXT',
    summary: "the system message; 'none' for none, no TEXT shows it",
    complete: (text) => startingWith(text, ['none']),
    run: changeSystem,
  },
  '/retry': { summary: 'ask the last message again, perhaps with another adapter', run: retry },
  '/clear': { summary: 'forget the conversation', run: clear },
  '/stats': { summary: 'who gave each answer, and what it took', run: stats },
  '/save': {
    argument: 'FILE',
    summary: 'write the conversation as Markdown, or as JSON to a .json file',
    complete: (text) => completePath(text, 'file').map(({ value }) => value),
    run: save,
  },
  '/help': { summary: 'show this', run: help },
  '/exit': { summary: 'leave; Ctrl-D too', run: () => false },
};

/** A message that begins with a slash and a word is a command; `//` and a path are no commands' names. */
export function isSlash(text: string): boolean {
  return /^\/[a-z]*(\s|$)/i.test(text);
}

/** Returns whether the chat goes on. */
export async function runSlash(text: string, session: ChatSession): Promise<boolean> {
  const [, name = '', argument = ''] = /^(\/\S*)\s*(.*)$/s.exec(text) ?? [];
  const command = Object.hasOwn(SLASH, name) ? SLASH[name] : undefined;
  if (!command) throw new UsageError(`unknown command ${name}`, nearest(name, Object.keys(SLASH)) ?? '/help');
  if (command.argument === undefined && argument !== '') throw new UsageError(`${name} takes nothing after it`, name);
  return (await command.run(session, argument)) !== false;
}

/** For Readline: what the end of the line can become, and that end. */
export function completeSlash(line: string, session: ChatSession): [string[], string] {
  const [, name, argument] = /^(\/\S*)\s+(.*)$/s.exec(line) ?? [];
  if (name !== undefined) {
    const command = Object.hasOwn(SLASH, name) ? SLASH[name] : undefined;
    return [command?.complete?.(argument!, session) ?? [], argument!];
  }
  if (!line.startsWith('/')) return [[], line];
  const names = startingWith(line, Object.keys(SLASH));
  return [names.map((found) => (SLASH[found]!.argument === undefined ? found : `${found} `)), line];
}

function startingWith(text: string, words: string[]): string[] {
  return words.filter((word) => word.startsWith(text));
}

function folders(text: string): string[] {
  const id = /^[^=/]+=/.exec(text)?.[0] ?? '';
  return completePath(text.slice(id.length), 'adapter').map(({ value }) => id + value);
}

function note({ io: { stdout } }: ChatSession, text: string): void {
  for (const line of wrap(text, stdout.columns)) stdout.line(stdout.style.dim(line));
}

async function changeAdapter(session: ChatSession, name: string): Promise<void> {
  const { stdout } = session.io;
  const ids = session.adapterIds();
  const all = [NO_ADAPTER, ...ids];
  if (name === '') {
    const current = session.adapter ?? NO_ADAPTER;
    for (const id of all) stdout.line(id === current ? stdout.style.cyan(`* ${id}`) : `  ${id}`);
    return;
  }
  if (all.includes(name)) session.adapter = name === NO_ADAPTER ? undefined : name;
  else if (/[=/\\.~]/.test(name)) {
    const [given] = parseAdapters([name]);
    await registerAll(session.base, session.folder, [{ id: given!.id, path: expandHome(given!.path) }], session.io);
    session.adapter = given!.id;
  } else {
    const guess = nearest(name, all);
    throw new UsageError(
      `no adapter '${name}'`,
      guess === undefined ? `one of ${all.join(', ')}, or /adapter ID=DIR` : `/adapter ${guess}`,
    );
  }
  note(session, `answers by ${session.adapter ?? 'the base alone'}`);
}

function changeSystem(session: ChatSession, text: string): void {
  if (text === '') return note(session, session.system ?? 'no system message');
  session.system = text === 'none' ? undefined : text;
  note(session, session.system === undefined ? 'no system message' : 'system message set');
}

async function retry(session: ChatSession): Promise<void> {
  const text = session.takeLast();
  if (text === undefined) throw new UsageError('nothing was asked yet', 'a message');
  await session.answer(text);
}

function clear(session: ChatSession): void {
  session.clear();
  note(session, 'conversation forgotten');
}

/** Of the table that /stats prints, at the widest: everything but the name. */
const OTHER_COLUMNS = 64;

function stats(session: ChatSession): void {
  const { stdout } = session.io;
  if (session.turns.length === 0) return note(session, 'no answers yet');
  const right = 'right' as const;
  const nameWidth = Math.min(40, Math.max(10, stdout.columns - OTHER_COLUMNS));
  const columns = [
    { title: '#', align: right },
    { title: 'by' },
    { title: 'generation' },
    { title: 'in', align: right },
    { title: 'out', align: right },
    { title: 'first', align: right },
    { title: 'tokens/s', align: right },
    { title: 'end' },
  ];
  const rows = session.turns.map(({ adapter, result }, i) => {
    const { usage, timing, finishReason } = result;
    const generation = result.adapters[0]?.generation.slice(0, 12) ?? '';
    return [
      `${i + 1}`,
      cut(oneLine(adapter ?? 'base'), nameWidth),
      generation,
      formatCount(usage.input),
      formatCount(usage.output),
      formatMs(timing.ttftMs),
      rateOf(timing.tpotMs) ?? '',
      finishReason,
    ];
  });
  for (const line of table(columns, rows, stdout.style.dim)) stdout.line(line);
  const { contextLength } = session.base.info;
  const last = session.turns.at(-1)!.result.usage;
  note(session, `context: ${formatCount(last.input + last.output)} of ${formatCount(contextLength)} tokens`);
}

function save(session: ChatSession, given: string): void {
  if (given === '') throw new UsageError('FILE is missing', '/save chat.md');
  if (session.turns.length === 0) throw new UsageError('there is no answer to save yet', 'a message');
  const path = resolve(expandHome(given));
  const text = extname(path).toLowerCase() === '.json' ? asJson(session) : asMarkdown(session);
  try {
    writeFileSync(path, text, { flag: 'wx' });
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    throw new CliError(code ?? 'ERR_UNEXPECTED', code === 'EEXIST' ? `${given} is there already` : message);
  }
  note(session, `${session.turns.length} turns in ${shortPath(path)}`);
}

function asJson({ system, turns, base }: ChatSession): string {
  const messages = turns.flatMap(({ user, adapter, result }: Turn) => {
    const { text, ...how } = result;
    return [
      { role: 'user', content: user },
      { role: 'assistant', content: text, adapter: adapter ?? null, ...how },
    ];
  });
  const { family, parameters, dtype, digest } = base.info;
  return `${JSON.stringify({ base: { family, parameters, dtype, digest }, system: system ?? null, messages }, null, 2)}\n`;
}

function asMarkdown({ system, turns }: ChatSession): string {
  const parts = turns.flatMap(({ user, adapter, result }) => [
    `## You\n\n${user}`,
    `## ${adapter ?? 'base'}\n\n${result.text.trim()}`,
  ]);
  return `${[...(system === undefined ? [] : [`## System\n\n${system}`]), ...parts].join('\n\n')}\n`;
}

function help(session: ChatSession): void {
  const { stdout } = session.io;
  const rows = Object.entries(SLASH).map(
    ([name, { argument = '', summary }]) => [`${name} ${argument}`, summary] as const,
  );
  const width = Math.max(...rows.map(([name]) => name.length)) + 2;
  for (const [name, summary] of rows) {
    const [first, ...rest] = wrap(summary, Math.max(20, stdout.columns - width - 2));
    stdout.line(`  ${stdout.style.cyan(pad(name, width))}${first}`);
    for (const line of rest) stdout.line(`${' '.repeat(width + 2)}${line}`);
  }
  note(session, 'A line that ends with \\ goes on in the next one; """ begins and ends a longer message.');
  note(session, 'Ctrl-C ends an answer, Tab completes, the arrow keys bring back what was typed before.');
}
