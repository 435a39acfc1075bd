// Chat templates of a model folder or an adapter, rendered as transformers' apply_chat_template renders them.

import { OpenLoraError } from '../errors.js';
import { parseTemplate, type Statement } from './chat-template-ast.js';
import { marker, marksIn, markTexts, plain } from './chat-template-marks.js';
import { renderTemplate } from './chat-template-render.js';
import { strftime } from './chat-template-time.js';
import { TemplateError, fromJs, toText, type Value } from './chat-template-value.js';
import type { ChatMessage, RenderChatOptions } from './tokenizer-types.js';

/** What a folder says of its templates. Plain values: it is posted from the worker. */
export interface ChatTemplateSource {
  /** Jinja source by name; the only one is `default`. */
  templates: Record<string, string>;
  /** `bos_token`, `eos_token`, … as text, and lists of them, given to every template. */
  specialTokens: Record<string, string>;
  extraSpecialTokens: string[];
}

const SPECIAL_TOKENS = ['bos_token', 'eos_token', 'unk_token', 'sep_token', 'pad_token', 'cls_token', 'mask_token'];

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function parseConfig(text: string | undefined, name: string): Record<string, unknown> {
  if (text === undefined) return {};
  try {
    const config: unknown = JSON.parse(text);
    if (isRecord(config)) return config;
  } catch {
    // refused below
  }
  throw new OpenLoraError('ERR_TOKENIZER_UNSUPPORTED', `${name} is not a JSON object`, { part: name });
}

/** A token is written as its text or as `{content}`. */
function tokenText(token: unknown): string | undefined {
  if (typeof token === 'string') return token;
  return isRecord(token) && typeof token.content === 'string' ? token.content : undefined;
}

function templatesOf(value: unknown): Record<string, string> {
  if (typeof value === 'string') return { default: value };
  const templates: Record<string, string> = {};
  for (const entry of Array.isArray(value) ? (value as unknown[]) : []) {
    if (isRecord(entry) && typeof entry.name === 'string' && typeof entry.template === 'string') {
      templates[entry.name] = entry.template;
    }
  }
  return templates;
}

/**
 * Reads the texts of a folder's files (undefined: there is none). chat_template.jinja goes before tokenizer_config.json, and
 * that before chat_template.json. Throws ERR_TOKENIZER_UNSUPPORTED for a file that is not JSON.
 */
export function readChatTemplates(files: {
  tokenizerConfig: string | undefined;
  jinja: string | undefined;
  chatTemplateJson: string | undefined;
}): ChatTemplateSource {
  const config = parseConfig(files.tokenizerConfig, 'tokenizer_config.json');
  const own = parseConfig(files.chatTemplateJson, 'chat_template.json');
  const specialTokens: Record<string, string> = {};
  for (const key of SPECIAL_TOKENS) {
    const text = tokenText(config[key]);
    if (text !== undefined) specialTokens[key] = text;
  }
  const extra = config.additional_special_tokens ?? config.extra_special_tokens;
  return {
    templates: {
      ...templatesOf(own.chat_template),
      ...templatesOf(config.chat_template),
      ...(files.jinja !== undefined && { default: files.jinja }),
    },
    specialTokens,
    extraSpecialTokens: (Array.isArray(extra) ? (extra as unknown[]) : []).flatMap((token) => tokenText(token) ?? []),
  };
}

/** Parsed templates kept: the base's, and those of the adapters last used. */
const PARSED_MAX = 64;

/** Renders conversations; keeps what it parsed. */
export class ChatTemplates {
  readonly #source: ChatTemplateSource;
  readonly #now: () => Date;
  readonly #parsed = new Map<string, Statement[]>();

  constructor(source: ChatTemplateSource, now = (): Date => new Date()) {
    this.#source = source;
    this.#now = now;
  }

  get hasTemplate(): boolean {
    return Object.keys(this.#source.templates).length > 0;
  }

  /** Throws ERR_CHAT_TEMPLATE_MISSING, or ERR_CHAT_TEMPLATE with the template's message or what it can't do. */
  render(messages: readonly ChatMessage[], options: RenderChatOptions = {}): string {
    try {
      return this.#renderer(options)(inputsOf(messages, options));
    } catch (error) {
      throw toCoded(error);
    }
  }

  /**
   * The same text, and the places in it where characters of messages and tools could begin one of `specialTokens`: all other
   * special tokens are the template's own. Throws as `render`, and ERR_CHAT_TEMPLATE where the two can't be told apart.
   */
  renderMarked(
    messages: readonly ChatMessage[],
    options: RenderChatOptions,
    specialTokens: readonly string[],
  ): { text: string; inputs: Set<number> } {
    try {
      const render = this.#renderer(options);
      const inputs = inputsOf(messages, options);
      const text = render(inputs);
      return { text, inputs: findInputs(text, inputs, specialTokens, render) };
    } catch (error) {
      throw toCoded(error);
    }
  }

  #renderer(options: RenderChatOptions): (inputs: Inputs) => string {
    const { addGenerationPrompt = true } = options;
    const body = this.#parse(options.template ?? this.#choose(options.tools !== undefined));
    const { specialTokens, extraSpecialTokens } = this.#source;
    const now = this.#now();
    const globals: [string, Value][] = [
      ['documents', null],
      ['add_generation_prompt', addGenerationPrompt],
      ...Object.entries(specialTokens),
      ...(extraSpecialTokens.length > 0 ? [['additional_special_tokens', extraSpecialTokens] as [string, Value]] : []),
      ['raise_exception', raiseException],
      ['strftime_now', ([format]: Value[]): Value => strftime(now, toText(format))],
    ];
    return ({ messages, tools }) =>
      renderTemplate(body, new Map([['messages', messages], ['tools', tools], ...globals]));
  }

  #choose(hasTools: boolean): string {
    const { templates } = this.#source;
    const source = (hasTools ? templates.tool_use : undefined) ?? templates.default;
    if (source !== undefined) return source;
    const names = Object.keys(templates);
    const found = names.length > 0 ? `only templates named ${names.join(', ')}` : 'no chat template';
    throw new OpenLoraError('ERR_CHAT_TEMPLATE_MISSING', `the tokenizer has ${found}; give \`prompt\` or a template`);
  }

  #parse(source: string): Statement[] {
    const body = this.#parsed.get(source) ?? parseTemplate(source);
    this.#parsed.delete(source);
    this.#parsed.set(source, body);
    for (const oldest of this.#parsed.keys()) {
      if (this.#parsed.size <= PARSED_MAX) break;
      this.#parsed.delete(oldest);
    }
    return body;
  }
}

interface Inputs {
  messages: Value;
  tools: Value;
}

function inputsOf(messages: readonly ChatMessage[], { tools }: RenderChatOptions): Inputs {
  return { messages: fromJs(messages), tools: fromJs(tools ?? null) };
}

/** Marks all that could begin a special token; where a template handles such characters one by one, whole tokens only. */
function findInputs(
  text: string,
  { messages, tools }: Inputs,
  specialTokens: readonly string[],
  render: (inputs: Inputs) => string,
): Set<number> {
  for (const everywhere of [true, false]) {
    const mark = marker(specialTokens, everywhere);
    let isMarked = false;
    const markInput = (input: string): string => {
      const marked = mark(input);
      isMarked ||= marked !== input;
      return marked;
    };
    try {
      const inputs = { messages: markTexts(messages, markInput), tools: markTexts(tools, markInput) };
      const marked = isMarked ? render(inputs) : text;
      if (plain(marked) === text) return marksIn(marked);
    } catch {
      // the text itself was rendered: no marks, no more
    }
  }
  const what = 'it changes what spells special tokens in the messages, which can not be told from its own';
  throw new TemplateError(`${what}; parseSpecialTokens takes them for tokens`);
}

/** A template's own refusal: its message reaches the user as it is. */
class RaisedError extends Error {}

function raiseException([message]: Value[]): never {
  throw new RaisedError(toText(message));
}

function toCoded(error: unknown): OpenLoraError {
  if (OpenLoraError.is(error)) return error;
  if (error instanceof RaisedError) {
    return new OpenLoraError('ERR_CHAT_TEMPLATE', error.message, { reason: 'raised' });
  }
  const message = error instanceof Error ? error.message : String(error);
  const reason = error instanceof TemplateError ? 'failed' : 'unreadable';
  const what = `the chat template can't be rendered as Jinja2 would: ${message}`;
  return new OpenLoraError('ERR_CHAT_TEMPLATE', what, { reason }, error);
}
