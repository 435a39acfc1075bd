// Messages between a tokenizer's owner and its worker thread. Each request has exactly one reply.

import { OpenLoraError } from '../errors.js';
import type { ChatTemplateSource } from './chat-template.js';
import type { TokenTable } from './token-bytes.js';
import type { AddedToken, ChatMessage, EncodedChat, RenderChatOptions } from './tokenizer-types.js';

/** The first request of a worker is `open`. */
export type WorkerRequest =
  | { kind: 'open'; folder: string; vocabSize: number | undefined }
  | { kind: 'encode'; text: string; addSpecialTokens: boolean; parseSpecialTokens: boolean }
  | { kind: 'encodeChat'; messages: readonly ChatMessage[]; options: RenderChatOptions; parseSpecialTokens: boolean };

export interface WorkerReplies {
  open: { table: TokenTable; addedTokens: AddedToken[]; templates: ChatTemplateSource };
  encode: Uint32Array;
  encodeChat: EncodedChat;
}

export interface WireError {
  code: string;
  message: string;
  details: Record<string, unknown>;
}

export type WorkerReply = { id: number; value: WorkerReplies[keyof WorkerReplies] } | { id: number; error: WireError };

export function toWire(error: unknown): WireError {
  if (OpenLoraError.is(error)) return { code: error.code, message: error.message, details: { ...error.details } };
  const message = error instanceof Error ? error.message : String(error);
  return { code: 'ERR_TOKENIZER_WORKER', message: `the tokenizer failed: ${message}`, details: {} };
}

export function fromWire(error: WireError): OpenLoraError {
  return new OpenLoraError(error.code, error.message, error.details);
}
