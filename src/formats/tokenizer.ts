import { resolve } from 'node:path';
import { ChatTemplates } from './chat-template.js';
import { decodeTokens } from './token-bytes.js';
import { TokenizerClient } from './tokenizer-client.js';
import type { WorkerReplies } from './tokenizer-protocol.js';
import type { OpenTokenizerOptions, Tokenizer } from './tokenizer-types.js';

export type * from './tokenizer-types.js';

/**
 * Opens the tokenizer of a Hugging Face model folder. Rejects with ERR_TOKENIZER_MISSING, ERR_TOKENIZER_UNSUPPORTED (which
 * names the part of tokenizer.json), ERR_TOKENIZER_WORKER or ERR_ABORTED. A chat template that can't be used is no error
 * until it is asked for.
 */
export async function openTokenizer(options: OpenTokenizerOptions): Promise<Tokenizer> {
  const client = new TokenizerClient({ kind: 'open', folder: resolve(options.folder), vocabSize: options.vocabSize });
  try {
    return tokenizerOf(client, await client.open(options.signal));
  } catch (error) {
    await client.close();
    throw error;
  }
}

function tokenizerOf(client: TokenizerClient, opened: WorkerReplies['open']): Tokenizer {
  const { table, addedTokens } = opened;
  const templates = new ChatTemplates(opened.templates);
  return {
    encode: (text, { addSpecialTokens = true, parseSpecialTokens = true, signal } = {}) =>
      client.request<'encode'>({ kind: 'encode', text, addSpecialTokens, parseSpecialTokens }, signal),
    encodeChat: (messages, { signal, parseSpecialTokens = false, ...options } = {}) =>
      client.request<'encodeChat'>({ kind: 'encodeChat', messages, options, parseSpecialTokens }, signal),
    renderChat: (messages, chat) => templates.render(messages, chat),
    decode: (ids, { skipSpecialTokens = true } = {}) => decodeTokens(table, ids, skipSpecialTokens),
    tokenBytes: table.bytes,
    tokenOffsets: table.offsets,
    addedTokens,
    bosToken: opened.templates.specialTokens.bos_token,
    eosToken: opened.templates.specialTokens.eos_token,
    hasChatTemplate: templates.hasTemplate,
    dispose: () => client.close(),
  };
}
