// `openlora chat`: a conversation on the terminal, with adapters that can be changed between turns.

import { createInterface, type Interface } from 'node:readline';
import type { Base, ChatMessage } from '../index.js';
import { OpenLoraError } from '../errors.js';
import {
  BASE_OPTIONS,
  SAMPLING_OPTIONS,
  openBase,
  parseAdapters,
  registerAll,
  requireFolder,
  samplingOf,
  type Sampling,
} from './base-options.js';
import { defineCommand } from './command.js';
import { CliError, UsageError, printError, reportOf } from './errors.js';
import type { Io } from './io.js';
import { formatMs, nearest, printable } from './text.js';

const COMMANDS: Record<string, string> = {
  '/adapter NAME': "who answers; 'none': the base alone; no NAME: list them",
  '/adapter [ID=]DIR': 'register an adapter, and answer with it',
  '/system TEXT': 'set the system message; no TEXT: none',
  '/reset': 'forget the conversation',
  '/help': 'show this',
  '/exit': 'leave (Ctrl-D too); Ctrl-C ends an answer',
};

export const chat = defineCommand({
  name: 'chat',
  summary: 'talk with a base and its adapters',
  usage: '--base DIR [--adapter DIR …]',
  details:
    'Needs a base or an adapter with a chat template. The first --adapter answers; /adapter changes it between turns.',
  isTextOnly: true,
  options: {
    ...BASE_OPTIONS,
    system: { kind: 'text', value: 'TEXT', short: 's', summary: 'system message' },
    ...SAMPLING_OPTIONS,
  },
  examples: [
    'openlora chat --base ./llama-instruct',
    'openlora chat --base ./qwen --adapter ./polite --adapter ./terse',
  ],
  async run({ options, positionals, io }) {
    if (positionals[0] !== undefined) throw new UsageError(`unexpected argument '${positionals[0]}'`);
    if (options.json) throw new UsageError('chat has no --json', 'openlora generate --chat --prompt … --json');
    const folder = requireFolder('--base', options.base);
    const adapters = parseAdapters(options.adapter);
    const base = await openBase(folder, options, io);
    try {
      await registerAll(base, adapters, io);
      const session = new ChatSession(base, io, samplingOf(options), adapters[0]?.id, options.system);
      session.checkTemplate();
      await session.run();
      return 0;
    } finally {
      await base.dispose();
    }
  },
});

class ChatSession {
  readonly #turns: ChatMessage[] = [];
  #answering: AbortController | undefined;

  constructor(
    private readonly base: Base,
    private readonly io: Io,
    private readonly sampling: Sampling,
    private adapter: string | undefined,
    private system: string | undefined,
  ) {}

  /** A base without a template is told at once, not after the first message was typed. */
  checkTemplate(): void {
    try {
      this.base.renderChat([{ role: 'user', content: 'hello' }], this.#adapterOption());
    } catch (error) {
      if (!OpenLoraError.is(error) || error.code !== 'ERR_CHAT_TEMPLATE_MISSING') throw error;
      const who = this.adapter === undefined ? 'this base has' : `neither this base nor adapter '${this.adapter}' has`;
      throw new CliError(
        error.code,
        `${who} no chat template, so there is no way to write a conversation for it`,
        'openlora generate --prompt …',
      );
    }
  }

  async run(): Promise<void> {
    const { stdin, stdout, signal } = this.io;
    const isTty = stdin.isTTY === true && stdout.isTty;
    const lines = createInterface({
      input: stdin,
      ...(isTty ? { output: stdout.stream, terminal: true } : {}),
      historySize: 200,
    });
    const close = () => lines.close();
    signal.addEventListener('abort', close, { once: true });
    lines.on('SIGINT', () => (this.#answering ? this.#answering.abort() : lines.close()));
    if (isTty) this.#greet();
    try {
      this.#prompt(lines, isTty);
      for await (const line of lines) {
        if (!(await this.#take(line.trim()))) break;
        this.#prompt(lines, isTty);
      }
    } finally {
      signal.removeEventListener('abort', close);
      lines.close();
      if (isTty) stdout.line();
    }
  }

  #greet(): void {
    const { stdout } = this.io;
    const { family, dtype, contextLength } = this.base.info;
    stdout.line(stdout.style.dim(`${family}, ${dtype}, context ${contextLength} tokens. /help shows the commands.`));
  }

  #prompt(lines: Interface, isTty: boolean): void {
    if (!isTty) return;
    const { style } = this.io.stdout;
    lines.setPrompt(`${style.cyan(this.adapter ?? 'base')}${style.bold('> ')}`);
    lines.prompt();
  }

  /** Returns whether the conversation goes on. */
  async #take(line: string): Promise<boolean> {
    if (line === '') return true;
    if (!line.startsWith('/')) {
      await this.#guard(() => this.#answer(line));
      return !this.io.signal.aborted;
    }
    const [, name = '', rest = ''] = /^(\/\S*)\s*(.*)$/s.exec(line) ?? [];
    if (name === '/exit' || name === '/quit') return false;
    await this.#guard(() => this.#command(name, rest));
    return true;
  }

  /** A failed turn is told; the conversation goes on. */
  async #guard(action: () => Promise<void> | void): Promise<void> {
    try {
      await action();
    } catch (error) {
      if (!this.io.signal.aborted) printError(this.io.stderr, reportOf(error));
    }
  }

  async #answer(text: string): Promise<void> {
    const { stdout, signal } = this.io;
    const messages: ChatMessage[] = [
      ...(this.system === undefined ? [] : [{ role: 'system', content: this.system }]),
      ...this.#turns,
      { role: 'user', content: text },
    ];
    const generation = this.base.generate({ messages, ...this.sampling, ...this.#adapterOption() });
    const cancel = () => generation.cancel();
    this.#answering = new AbortController();
    this.#answering.signal.addEventListener('abort', cancel);
    signal.addEventListener('abort', cancel, { once: true });
    try {
      for await (const chunk of generation) stdout.write(stdout.isTty ? printable(chunk.text) : chunk.text);
      const result = await generation.result;
      const seconds = (result.timing.tpotMs * result.usage.output) / 1000;
      const rate = seconds > 0 ? `, ${(result.usage.output / seconds).toFixed(0)} tokens/s` : '';
      const how =
        result.finishReason === 'cancelled'
          ? ' (cancelled)'
          : result.finishReason === 'length'
            ? ` (cut at ${result.usage.output} tokens)`
            : '';
      stdout.line(
        stdout.isTty ? `${how}\n${stdout.style.dim(`first token ${formatMs(result.timing.ttftMs)}${rate}`)}` : how,
      );
      // What was cancelled was still said: the model sees the same conversation as the person.
      this.#turns.push({ role: 'user', content: text }, { role: 'assistant', content: result.text });
    } finally {
      signal.removeEventListener('abort', cancel);
      this.#answering = undefined;
    }
  }

  async #command(name: string, rest: string): Promise<void> {
    const { stdout } = this.io;
    switch (name) {
      case '/help':
        for (const [command, what] of Object.entries(COMMANDS))
          stdout.line(`  ${stdout.style.cyan(command.padEnd(20))}${what}`);
        return;
      case '/reset':
        this.#turns.length = 0;
        stdout.line(stdout.style.dim('conversation forgotten'));
        return;
      case '/system':
        this.system = rest === '' ? undefined : rest;
        stdout.line(stdout.style.dim(rest === '' ? 'no system message' : 'system message set'));
        return;
      case '/adapter':
        return await this.#changeAdapter(rest);
      default: {
        const known = ['/adapter', '/system', '/reset', '/help', '/exit'];
        throw new UsageError(`unknown command ${name}`, nearest(name, known) ?? '/help');
      }
    }
  }

  async #changeAdapter(name: string): Promise<void> {
    const { stdout } = this.io;
    const ids = [...this.base.adapters.list()].map(({ id }) => id);
    if (name === '') {
      for (const id of ['none', ...ids])
        stdout.line(`  ${id === (this.adapter ?? 'none') ? stdout.style.cyan(`* ${id}`) : `  ${id}`}`);
      return;
    }
    if (name === 'none' || ids.includes(name)) this.adapter = name === 'none' ? undefined : name;
    else if (/[=/\\.]/.test(name)) {
      const [adapter] = parseAdapters([name]);
      await registerAll(this.base, [adapter!], this.io);
      this.adapter = adapter!.id;
    } else {
      throw new UsageError(
        `no adapter '${name}'`,
        nearest(name, ids) ?? `one of ${['none', ...ids].join(', ')}, or /adapter ID=DIR`,
      );
    }
    stdout.line(stdout.style.dim(`answers by ${this.adapter ?? 'the base alone'}`));
  }

  #adapterOption(): { adapter?: string } {
    return this.adapter === undefined ? {} : { adapter: this.adapter };
  }
}
