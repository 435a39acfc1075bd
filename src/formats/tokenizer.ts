import { resolve } from 'node:path';
import { ChatTemplates } from './chat-template.js';
import { decodeTokens } from './token-bytes.js';
import { TOKENIZER_WORKER, type TokenizerRequests } from './tokenizer-protocol.js';
import type { AddedToken, OpenTokenizerOptions, Tokenizer } from './tokenizer-types.js';
import { WorkerClient } from './worker-client.js';

export type * from './tokenizer-types.js';

/**
 * Opens the tokenizer of a Hugging Face model folder. Rejects with ERR_TOKENIZER_MISSING, ERR_TOKENIZER_UNSUPPORTED (which
 * names the part of tokenizer.json), ERR_TOKENIZER_WORKER or ERR_ABORTED. A chat template that can't be used is no error
 * until it is asked for.
 */
export async function openTokenizer(options: OpenTokenizerOptions): Promise<Tokenizer> {
  const open = { folder: resolve(options.folder), vocabSize: options.vocabSize };
  const client = new WorkerClient<TokenizerRequests>(TOKENIZER_WORKER, open);
  try {
    return tokenizerOf(client, await client.open(options.signal));
  } catch (error) {
    await client.close();
    throw error;
  }
}

function tokenizerOf(client: WorkerClient<TokenizerRequests>, opened: TokenizerRequests['open']['reply']): Tokenizer {
  const { table, vocabulary } = opened;
  const templates = new ChatTemplates(opened.templates, { trees: opened.trees });
  let addedTokens: AddedToken[] | undefined;
  return {
    encode: (text, { addSpecialTokens = true, parseSpecialTokens = true, signal } = {}) =>
      client.request('encode', { text, addSpecialTokens, parseSpecialTokens }, signal),
    encodeChat: (messages, { signal, parseSpecialTokens = false, ...options } = {}) =>
      client.request('encodeChat', { messages, options, parseSpecialTokens }, signal),
    renderChat: (messages, chat) => templates.render(messages, chat),
    decode: (ids, { skipSpecialTokens = true } = {}) => decodeTokens(table, ids, skipSpecialTokens),
    tokenBytes: table.bytes,
    tokenOffsets: table.offsets,
    vocabulary,
    get addedTokens() {
      return (addedTokens ??= JSON.parse(opened.addedTokens) as AddedToken[]);
    },
    bosToken: opened.templates.specialTokens.bos_token,
    eosToken: opened.templates.specialTokens.eos_token,
    hasChatTemplate: templates.hasTemplate,
    dispose: () => client.close(),
  };
}
