// What the word at the cursor can become, by the tables that parse the command line.

import type { Option, OptionTable, PathKind } from './args.js';
import type { Command } from './command.js';
import { COMMANDS, LISTED } from './commands.js';
import { completePath, type Candidate } from './paths.js';

export interface Candidates {
  /** Shells quote paths and go on after a folder; words end with a space. */
  kind: 'words' | 'paths';
  items: Candidate[];
}

/** `words`: those after `openlora`, up to the one at the cursor, which is the last and may be empty. */
export async function candidatesFor(words: readonly string[]): Promise<Candidates> {
  const before = words.slice(0, -1);
  const current = words.at(-1) ?? '';
  const [name] = before;
  const commands = LISTED.map(([value, { summary }]) => ({ value, summary }));
  if (name === undefined) {
    return startingWith(current, current.startsWith('-') ? [{ value: '--help' }, { value: '--version' }] : commands);
  }
  if (name === 'help') return startingWith(current, before.length === 1 ? commands : []);
  if (!Object.hasOwn(COMMANDS, name)) return startingWith(current, []);
  return within(await COMMANDS[name]!.load(), before.slice(1), current);
}

function within(command: Command, before: readonly string[], current: string): Candidates {
  const { options } = command;
  const { used, given, pending, isAfterDashes } = walk(options, before);
  if (pending) return valueOf(pending, current, '');
  const [, head, name] = /^(--([^=]+)=)/.exec(current) ?? [];
  if (head !== undefined && !isAfterDashes) {
    const option = options[name!];
    return option && option.kind !== 'flag' ? valueOf(option, current.slice(head.length), head) : startingWith('', []);
  }
  const wanted = command.positionalsBeside(used)[given];
  const isOption = !isAfterDashes && (current.startsWith('-') || (current === '' && !wanted));
  if (isOption) {
    const free = Object.entries(options).filter(
      ([key, option]) => !option.isHidden && (option.kind === 'list' || !used.has(key)),
    );
    return startingWith(
      current,
      free.map(([key, { summary }]) => ({ value: `--${key}`, summary })),
    );
  }
  return wanted ? valueOf(wanted, current, '') : startingWith('', []);
}

/** What the words before the cursor have said. `pending`: an option that waits for its value. */
function walk(options: OptionTable, words: readonly string[]) {
  const used = new Set<string>();
  let [given, isAfterDashes] = [0, false];
  let pending: Option | undefined;
  for (const word of words) {
    if (pending) pending = undefined;
    else if (isAfterDashes || !word.startsWith('-') || word === '-') given++;
    else if (word === '--') isAfterDashes = true;
    else {
      const key = word.startsWith('--')
        ? word.slice(2).split('=')[0]!
        : Object.keys(options).find((candidate) => options[candidate]!.short === word[1]);
      const option = key !== undefined && Object.hasOwn(options, key) ? options[key] : undefined;
      if (!option) continue;
      used.add(key!);
      const hasValue = word.startsWith('--') ? word.includes('=') : word.length > 2;
      if (option.kind !== 'flag' && !hasValue) pending = option;
    }
  }
  return { used, given, pending, isAfterDashes };
}

/** `head` stands before the value in the same word. */
function valueOf(
  option: { kind?: string; choices?: readonly string[]; path?: PathKind },
  current: string,
  head: string,
): Candidates {
  if (option.choices) {
    const choices = option.choices.map((choice) => ({ value: head + choice }));
    return startingWith(head + current, choices);
  }
  if (option.path === undefined) return startingWith('', []);
  // An adapter may be given as ID=DIR.
  const id = option.kind === 'list' ? (/^[^=/]+=/.exec(current)?.[0] ?? '') : '';
  const items = completePath(current.slice(id.length), option.path);
  return { kind: 'paths', items: items.map((item) => ({ ...item, value: head + id + item.value })) };
}

function startingWith(text: string, items: Candidate[]): Candidates {
  return { kind: 'words', items: items.filter(({ value }) => value.startsWith(text)) };
}
