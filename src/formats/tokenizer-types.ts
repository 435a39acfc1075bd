// What the SDK sees of tokenizers and chat templates.

/** A call that an assistant message made, in OpenAI's shape. Some templates want `arguments` parsed: an object passes. */
export interface ToolCall {
  id?: string;
  type?: 'function';
  function: { name: string; arguments: string | Record<string, unknown> };
}

/** A function that the model may call, in OpenAI's shape; `parameters` is a JSON Schema. */
export interface Tool {
  type: 'function';
  function: { name: string; description?: string; parameters?: Record<string, unknown>; [key: string]: unknown };
}

/** One turn of a conversation, in OpenAI's shape. */
export interface ChatMessage {
  role: string;
  content: string | { type: 'text'; text: string }[] | null;
  name?: string;
  tool_calls?: ToolCall[];
  tool_call_id?: string;
}

/** What rendering a conversation takes besides its messages. */
export interface RenderChatOptions {
  /** Default: none, and the template sees no tools at all. */
  tools?: readonly Tool[];
  /** Whether the prompt ends with the head of the assistant's answer. Default: true. */
  addGenerationPrompt?: boolean;
  /** An adapter's own, used in place of the base's: Jinja source, or all that its folder says. */
  template?: string | ChatTemplateSource;
}

/** What a folder says of its chat templates. Plain values: it is posted between threads. */
export interface ChatTemplateSource {
  /** Jinja source by name; the only one is `default`, `tool_use` is for conversations with tools. */
  templates: Record<string, string>;
  /** `bos_token`, `eos_token`, … as text, and lists of them, given to every template. */
  specialTokens: Record<string, string>;
  extraSpecialTokens: string[];
}

export interface EncodeOptions {
  /**
   * Whether the post-processor adds BOS and the like; 'once': not before a text that begins with them, as a rendered
   * conversation does. Default: true.
   */
  addSpecialTokens?: boolean | 'once';
  /** Whether a special token that is spelled in the text becomes that token, as in `tokenizers`; else it stays text. Default: true. */
  parseSpecialTokens?: boolean;
  /** Rejects with ERR_ABORTED; work that the worker has begun is finished and dropped. */
  signal?: AbortSignal;
}

export interface DecodeOptions {
  /** Whether special tokens leave no text. Default: true. */
  skipSpecialTokens?: boolean;
}

/** An entry of `added_tokens` in tokenizer.json. */
export interface AddedToken {
  readonly id: number;
  readonly content: string;
  /** Special tokens are left out of decoded text. */
  readonly special: boolean;
}

/** A conversation as the model reads it. `text` is what the template gave, special tokens included. */
export interface EncodedChat {
  tokens: Uint32Array;
  text: string;
}

export interface OpenTokenizerOptions {
  /**
   * Holds tokenizer.json, and optionally tokenizer_config.json, chat_template.jinja, additional_chat_templates/NAME.jinja or
   * chat_template.json.
   */
  folder: string;
  /**
   * The model's vocabulary (rows of its embedding). `tokenOffsets` has one entry more; ids that the tokenizer doesn't
   * have are empty. Text that encodes to an id beyond it rejects with ERR_TOKEN_RANGE (some checkpoints' tokenizers have
   * special tokens that the model has not). Default: the tokenizer's own largest id + 1.
   */
  vocabSize?: number;
  signal?: AbortSignal;
}

/**
 * A model's tokenizer and chat template. Reading, building and encoding happen in a worker thread, which doesn't keep the
 * process alive while it is idle; decoding and `renderChat` happen on the caller's thread.
 */
export interface Tokenizer {
  /** Ids of `text`. Rejects with ERR_CLOSED after `dispose`. */
  encode(text: string, options?: EncodeOptions): Promise<Uint32Array>;
  /**
   * Renders and encodes a conversation; nothing is added to what the template writes, so BOS is never doubled.
   * Special tokens that are spelled in messages and tools stay text, unless `parseSpecialTokens` (default: false) says that
   * they are tokens, as in transformers; the template's own always are. Rejects as `renderChat` throws.
   */
  encodeChat(
    messages: readonly ChatMessage[],
    options?: RenderChatOptions & { parseSpecialTokens?: boolean; signal?: AbortSignal },
  ): Promise<EncodedChat>;
  /** Throws ERR_CHAT_TEMPLATE_MISSING, or ERR_CHAT_TEMPLATE with the template's own message or what it can't do. */
  renderChat(messages: readonly ChatMessage[], options?: RenderChatOptions): string;
  /** Throws ERR_TOKEN_RANGE for an id that the model's vocabulary doesn't have. Invalid UTF-8 becomes U+FFFD. */
  decode(ids: ArrayLike<number>, options?: DecodeOptions): string;
  /** Token id → bytes of its text: `tokenBytes[tokenOffsets[id] … tokenOffsets[id + 1])`; empty for special tokens. */
  readonly tokenBytes: Uint8Array;
  /** `[vocabSize + 1]` */
  readonly tokenOffsets: Uint32Array;
  /** One more than the largest id that it has. */
  readonly vocabulary: number;
  /** In the order of their ids. */
  readonly addedTokens: readonly AddedToken[];
  /** From tokenizer_config.json. */
  readonly bosToken: string | undefined;
  readonly eosToken: string | undefined;
  readonly hasChatTemplate: boolean;
  /** Ends the worker; what it had not answered rejects with ERR_CLOSED. Decoding still works afterwards. */
  dispose(): Promise<void>;
}
