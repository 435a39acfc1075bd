// Every command by its name.

import type { Command } from './command.js';

interface CommandEntry {
  summary: string;
  isHidden?: boolean;
  load(): Promise<Command>;
}

/** Loaded when they are named: `openlora --help` loads no SDK and no hub client. */
export const COMMANDS: Record<string, CommandEntry> = {
  demo: {
    summary: 'serve 64 mixed requests for twelve adapters on one base, live',
    load: async () => (await import('./demo/command.js')).demo,
  },
  generate: {
    summary: 'continue a prompt, with one adapter or several at once',
    load: async () => (await import('./generate.js')).generate,
  },
  chat: { summary: 'talk with a base and its adapters', load: async () => (await import('./chat/command.js')).chat },
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
  bench: {
    summary: "measure speed beside this machine's limits, compare and plot the results",
    load: async () => (await import('./bench/command.js')).bench,
  },
  build: {
    summary: 'build the native addon from the sources in the package',
    load: async () => (await import('./build.js')).build,
  },
  completion: {
    summary: 'print the completion script of a shell',
    load: async () => (await import('./completion.js')).completion,
  },
  complete: { summary: '', isHidden: true, load: async () => (await import('./completion.js')).complete },
  'demo-memory': { summary: '', isHidden: true, load: async () => (await import('./demo/memory-child.js')).demoMemory },
};

/** Those that help and completion show. */
export const LISTED = Object.entries(COMMANDS).filter(([, entry]) => !entry.isHidden);
