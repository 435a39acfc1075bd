// What a tokenizer asks of its thread.

import type { TemplateTrees } from './chat-template.js';
import type { TokenTable } from './token-bytes.js';
import type { ChatMessage, ChatTemplateSource, EncodedChat, RenderChatOptions } from './tokenizer-types.js';
import type { WorkerKind } from './worker-client.js';

// A type, not an interface: it is a record to its client.
export type TokenizerRequests = {
  open: {
    request: { folder: string; vocabSize: number | undefined };
    /** `addedTokens`: JSON of `AddedToken[]`; thousands of objects would take milliseconds to copy. */
    reply: {
      table: TokenTable;
      vocabulary: number;
      addedTokens: string;
      templates: ChatTemplateSource;
      trees: TemplateTrees;
    };
  };
  encode: {
    request: { text: string; addSpecialTokens: boolean | 'once'; parseSpecialTokens: boolean };
    reply: Uint32Array;
  };
  encodeChat: {
    request: { messages: readonly ChatMessage[]; options: RenderChatOptions; parseSpecialTokens: boolean };
    reply: EncodedChat;
  };
};

export const TOKENIZER_WORKER: WorkerKind = {
  name: 'tokenizer-worker',
  failures: { code: 'ERR_TOKENIZER_WORKER', whose: 'the tokenizer' },
  // Only a conversation can hold what can't be copied: a function, say.
  refusal: { code: 'ERR_CHAT_TEMPLATE', message: 'the messages are no plain data' },
};
