// A conversation: its turns, who answers, and what each answer took.

import type { Base, ChatMessage, Result } from '../../index.js';
import { OpenLoraError } from '../../errors.js';
import type { Sampling } from '../base-options.js';
import { CliError } from '../errors.js';
import { hintOf, quoted } from '../hints.js';
import type { Io } from '../io.js';
import { formatCount, formatMs, formatShort, printable, wrap } from '../text.js';

export interface Turn {
  user: string;
  /** Undefined: the base alone. */
  adapter: string | undefined;
  result: Result;
}

export class ChatSession {
  readonly turns: Turn[] = [];
  /** Who answers next; undefined: the base alone. */
  adapter: string | undefined;
  system: string | undefined;
  /** What was asked last, if it has no answer. */
  #unanswered: string | undefined;
  #cancel: (() => void) | undefined;

  constructor(
    readonly base: Base,
    /** Of the base. */
    readonly folder: string,
    private readonly sampling: Sampling,
    readonly io: Io,
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
        `openlora generate --base ${quoted(this.folder)} --prompt …`,
      );
    }
  }

  greet(): void {
    const { stdout } = this.io;
    const { family, parameters, dtype, contextLength } = this.base.info;
    const { style } = stdout;
    const shape = `${family}, ${formatShort(parameters)} parameters, ${dtype}`;
    stdout.line(style.dim(`${shape}, context ${formatCount(contextLength)} tokens.`));
    const ids = this.adapterIds();
    if (ids.length > 1)
      for (const line of wrap(`Adapters: ${ids.join(', ')}.`, stdout.columns)) stdout.line(style.dim(line));
    stdout.line(style.dim('/help shows the commands, Ctrl-D leaves.'));
  }

  adapterIds(): string[] {
    return [...this.base.adapters.list()].map(({ id }) => id);
  }

  /** Ends the answer that is being written; what there is of it stays. */
  stop(): void {
    this.#cancel?.();
  }

  /** A question without an answer stays: it may have been too long for this conversation alone. */
  clear(): void {
    this.turns.length = 0;
  }

  /** Takes the last question out of the conversation, to ask it again. */
  takeLast(): string | undefined {
    return this.#unanswered ?? this.turns.pop()?.user;
  }

  messages(): ChatMessage[] {
    return [
      ...(this.system === undefined ? [] : [{ role: 'system', content: this.system }]),
      ...this.turns.flatMap(({ user, result }) => [
        { role: 'user', content: user },
        { role: 'assistant', content: result.text },
      ]),
    ];
  }

  /** Streams the answer to stdout, and keeps both. A question that fails is kept for /retry. */
  async answer(text: string): Promise<void> {
    const { io, adapter } = this;
    this.#unanswered = text;
    const messages = [...this.messages(), { role: 'user', content: text }];
    const generation = this.base.generate({ messages, ...this.sampling, ...this.#adapterOption() });
    const cancel = () => generation.cancel();
    this.#cancel = cancel;
    io.signal.addEventListener('abort', cancel, { once: true });
    const stream = new AnswerStream(io);
    try {
      for await (const chunk of generation) stream.write(chunk.text);
      const result = await generation.result;
      stream.endLine();
      // What was cancelled was still said: the model sees the same conversation as the person.
      this.turns.push({ user: text, adapter, result });
      this.#unanswered = undefined;
      this.#say(result);
    } catch (error) {
      stream.erase();
      throw this.#explained(error);
    } finally {
      io.signal.removeEventListener('abort', cancel);
      this.#cancel = undefined;
    }
  }

  #say({ finishReason, usage, timing }: Result): void {
    const { stdout, stderr } = this.io;
    const used = usage.input + usage.output;
    const { contextLength } = this.base.info;
    const isFull = used >= contextLength;
    if (stdout.isTty) {
      const how = { cancelled: 'stopped, ', length: isFull ? '' : 'cut by --max-tokens, ', eos: '', stop: '' }[
        finishReason
      ];
      const rate = rateOf(timing.tpotMs);
      const numbers = [
        usage.output === 1 ? '1 token' : `${formatCount(usage.output)} tokens`,
        ...(rate === undefined ? [] : [`${rate} tokens/s`]),
        `first after ${formatMs(timing.ttftMs)}`,
        `context ${Math.round((100 * used) / contextLength)} %`,
      ];
      stdout.line(stdout.style.dim(`${how}${numbers.join(', ')}`));
    }
    if (finishReason === 'length' && isFull) {
      const limit = `the context of ${formatCount(contextLength)} tokens is full, the answer was cut`;
      stderr.line(`${stderr.style.yellow('warning:')} ${limit}; /clear begins anew`);
    }
  }

  /** A conversation that has grown too long needs other advice than a prompt that is. */
  #explained(error: unknown): unknown {
    if (!OpenLoraError.is(error) || error.code !== 'ERR_CONTEXT_LENGTH') return error;
    const isLong = this.turns.length > 0;
    const message = isLong
      ? `the conversation no longer fits into the context: ${error.message}`
      : `the message doesn't fit into the context: ${error.message}`;
    return new CliError(
      error.code,
      message,
      isLong ? '/clear begins anew, and /retry asks the last message again then' : hintOf(error.code),
    );
  }

  #adapterOption(): { adapter?: string } {
    return this.adapter === undefined ? {} : { adapter: this.adapter };
  }
}

/** Tokens per second after the first one; undefined where there was but one. */
export function rateOf(tpotMs: number): string | undefined {
  if (!(tpotMs > 0)) return undefined;
  return tpotMs > 100 ? (1000 / tpotMs).toFixed(1) : formatCount(1000 / tpotMs);
}

/** An answer as it comes; on a terminal a mark stands where its first word will. */
class AnswerStream {
  #hasMark = false;
  #last = '';

  constructor(private readonly io: Io) {
    if (!io.stdout.isTty) return;
    io.stdout.write(io.stdout.style.dim('…'));
    this.#hasMark = true;
  }

  write(text: string): void {
    if (text === '') return;
    this.erase();
    const { stdout } = this.io;
    stdout.write(stdout.isTty ? printable(text) : text);
    this.#last = text;
  }

  /** An answer of no words is a line, too. */
  endLine(): void {
    this.erase();
    const { stdout } = this.io;
    if (this.#last === '' && stdout.isTty) stdout.line(stdout.style.dim('(no words)'));
    else if (!this.#last.endsWith('\n')) stdout.line();
  }

  /** Takes the mark away. */
  erase(): void {
    if (this.#hasMark) this.io.stdout.write('\r\u001b[K');
    this.#hasMark = false;
  }
}
