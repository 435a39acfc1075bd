// Chat templates of a model folder or an adapter, rendered as transformers' apply_chat_template renders them.

import { deserialize, serialize } from 'node:v8';
import { OpenLoraError } from '../errors.js';
import { parseTemplate, type Statement } from './chat-template-ast.js';
import { marker, marksIn, markTexts, plain } from './chat-template-marks.js';
import { renderTemplate } from './chat-template-render.js';
import { strftime } from './chat-template-time.js';
import { TemplateError, fromJs, toText, type Value } from './chat-template-value.js';
import type { ChatMessage, ChatTemplateSource, RenderChatOptions } from './tokenizer-types.js';

const SPECIAL_TOKENS = ['bos_token', 'eos_token', 'unk_token', 'sep_token', 'pad_token', 'cls_token', 'mask_token'];
const EXTRA_TOKENS = ['additional_special_tokens', 'extra_special_tokens'];
/** What of tokenizer_config.json is read here. */
export const CHAT_KEYS: readonly string[] = ['chat_template', ...SPECIAL_TOKENS, ...EXTRA_TOKENS];

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

/** Reads the texts of a folder's files (undefined: there is none). Throws ERR_TOKENIZER_UNSUPPORTED for one that is not JSON. */
export function readChatTemplates(files: {
  tokenizerConfig: string | undefined;
  /** Of `readTemplateFiles`. */
  templates: Readonly<Record<string, string>>;
  chatTemplateJson: string | undefined;
}): ChatTemplateSource {
  const config = parseConfig(files.tokenizerConfig, 'tokenizer_config.json');
  return chatTemplatesOf(config, files.templates, parseConfig(files.chatTemplateJson, 'chat_template.json'));
}

/**
 * The same from what was parsed. As in transformers, template files replace all that tokenizer_config.json has; that goes
 * before chat_template.json, which is a processor's.
 */
export function chatTemplatesOf(
  config: Readonly<Record<string, unknown>>,
  files: Readonly<Record<string, string>>,
  own: Readonly<Record<string, unknown>>,
): ChatTemplateSource {
  const specialTokens: Record<string, string> = {};
  for (const key of SPECIAL_TOKENS) {
    const text = tokenText(config[key]);
    if (text !== undefined) specialTokens[key] = text;
  }
  const extra = EXTRA_TOKENS.map((key) => config[key]).find((value) => value !== undefined && value !== null);
  return {
    templates:
      Object.keys(files).length > 0
        ? { ...files }
        : { ...templatesOf(own.chat_template), ...templatesOf(config.chat_template) },
    specialTokens,
    extraSpecialTokens: (Array.isArray(extra) ? (extra as unknown[]) : []).flatMap((token) => tokenText(token) ?? []),
  };
}

/** Parsed templates kept: the base's, and those of the adapters last used. */
const PARSED_MAX = 64;

/** By a template's text, what it was parsed to, in bytes that another thread can read. */
export type TemplateTrees = Map<string, Uint8Array>;

/** Parsing takes milliseconds, the first time above all, so a tokenizer's own thread does it. Left out is what can't be parsed. */
export function templateTrees({ templates }: ChatTemplateSource): TemplateTrees {
  const trees: TemplateTrees = new Map();
  for (const template of Object.values(templates)) {
    try {
      trees.set(template, serialize(parseTemplate(template)));
    } catch {
      // whoever asks for it hears why
    }
  }
  return trees;
}

/** Renders conversations; keeps what it parsed. */
export class ChatTemplates {
  readonly #source: ChatTemplateSource;
  readonly #trees: TemplateTrees;
  readonly #now: () => Date;
  readonly #parsed = new Map<string, Statement[]>();

  constructor(
    source: ChatTemplateSource,
    { trees = new Map(), now = () => new Date() }: { trees?: TemplateTrees; now?: () => Date } = {},
  ) {
    this.#source = source;
    this.#trees = trees;
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
    const source = options.template === undefined ? this.#source : ofAdapter(this.#source, options.template);
    const body = this.#parse(choose(source.templates, options.tools !== undefined));
    const { specialTokens, extraSpecialTokens } = source;
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

  #parse(source: string): Statement[] {
    const tree = this.#trees.get(source);
    const body = this.#parsed.get(source) ?? (tree ? (deserialize(tree) as Statement[]) : parseTemplate(source));
    this.#parsed.delete(source);
    this.#parsed.set(source, body);
    for (const oldest of this.#parsed.keys()) {
      if (this.#parsed.size <= PARSED_MAX) break;
      this.#parsed.delete(oldest);
    }
    return body;
  }
}

function choose(templates: Readonly<Record<string, string>>, hasTools: boolean): string {
  const source = (hasTools ? templates.tool_use : undefined) ?? templates.default;
  if (source !== undefined) return source;
  const names = Object.keys(templates);
  const found = names.length > 0 ? `only templates named ${names.join(', ')}` : 'no chat template';
  throw new OpenLoraError('ERR_CHAT_TEMPLATE_MISSING', `the tokenizer has ${found}; give \`prompt\` or a template`);
}

/** A template and nothing else. */
export function singleTemplate(template: string): ChatTemplateSource {
  return { templates: { default: template }, specialTokens: {}, extraSpecialTokens: [] };
}

/** An adapter's templates and tokens; what it doesn't say is the base's. */
function ofAdapter(base: ChatTemplateSource, template: string | ChatTemplateSource): ChatTemplateSource {
  const own = typeof template === 'string' ? singleTemplate(template) : template;
  return {
    templates: own.templates.default === undefined ? { ...base.templates, ...own.templates } : own.templates,
    specialTokens: { ...base.specialTokens, ...own.specialTokens },
    extraSpecialTokens: own.extraSpecialTokens.length > 0 ? own.extraSpecialTokens : base.extraSpecialTokens,
  };
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
