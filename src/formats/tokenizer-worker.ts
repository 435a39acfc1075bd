// The worker thread of one tokenizer: reads, builds, renders and encodes. It answers requests in their order.

import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parentPort } from 'node:worker_threads';
import { OpenLoraError } from '../errors.js';
import { readTemplateFiles } from './chat-template-files.js';
import { ChatTemplates, readChatTemplates } from './chat-template.js';
import { buildTokenTable } from './token-bytes.js';
import { TextEncoding, checkedIds, type TextTokens } from './tokenizer-encode.js';
import { readTokenizerJson } from './tokenizer-json.js';
import { toWire, type WorkerReplies, type WorkerReply, type WorkerRequest } from './tokenizer-protocol.js';

interface Opened {
  encoding: TextEncoding;
  templates: ChatTemplates;
  vocabSize: number;
  specialTokens: string[];
}

async function readOptional(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw new OpenLoraError('ERR_TOKENIZER_MISSING', `${path} can't be read: ${(error as Error).message}`);
  }
}

async function open(folder: string, vocabSize?: number): Promise<{ opened: Opened; reply: WorkerReplies['open'] }> {
  const text = await readOptional(join(folder, 'tokenizer.json'));
  if (text === undefined) {
    throw new OpenLoraError(
      'ERR_TOKENIZER_MISSING',
      `${folder} has no tokenizer.json, which openlora reads tokens from`,
    );
  }
  const source = readTokenizerJson(text);
  const templates = readChatTemplates({
    tokenizerConfig: await readOptional(join(folder, 'tokenizer_config.json')),
    templates: await readTemplateFiles(folder, 'ERR_TOKENIZER_MISSING', readOptional),
    chatTemplateJson: await readOptional(join(folder, 'chat_template.json')),
  });
  const encoding = new TextEncoding(source);
  const addedTokens = source.addedTokens.map((token) => ({ ...token, text: encoding.textOf(token) }));
  const { bytePairs, decoder } = source;
  const table = buildTokenTable({ vocab: bytePairs.vocab, addedTokens, decoder }, vocabSize);
  const specialTokens = addedTokens.filter(({ special }) => special).map(({ content }) => content);
  return {
    opened: { encoding, templates: new ChatTemplates(templates), vocabSize: table.offsets.length - 1, specialTokens },
    reply: { table, addedTokens: addedTokens.map(({ id, content, special }) => ({ id, content, special })), templates },
  };
}

function encode({ encoding, vocabSize }: Opened, text: string, isAdding: boolean, textTokens: TextTokens): Uint32Array {
  return checkedIds(encoding.encode(text, isAdding, textTokens), vocabSize);
}

function main(): void {
  const port = parentPort;
  if (!port) return;
  let opened: Opened | undefined;

  const answer = async (request: WorkerRequest): Promise<WorkerReplies[keyof WorkerReplies]> => {
    if (request.kind === 'open') {
      const result = await open(request.folder, request.vocabSize);
      opened = result.opened;
      return result.reply;
    }
    if (!opened) throw new OpenLoraError('ERR_TOKENIZER_WORKER', 'the tokenizer was not opened');
    if (request.kind === 'encode')
      return encode(opened, request.text, request.addSpecialTokens, request.parseSpecialTokens ? 'none' : 'all');
    const { messages, options } = request;
    const specialTokens = request.parseSpecialTokens ? [] : opened.specialTokens;
    const { text, inputs } = opened.templates.renderMarked(messages, options, specialTokens);
    return { tokens: encode(opened, text, false, inputs), text };
  };

  let last = Promise.resolve();
  port.on('message', ({ id, request }: { id: number; request: WorkerRequest }) => {
    last = last.then(async () => {
      let reply: WorkerReply;
      try {
        reply = { id, value: await answer(request) };
      } catch (error) {
        reply = { id, error: toWire(error) };
      }
      port.postMessage(reply, transferables(reply));
    });
  });
}

function transferables(reply: WorkerReply): ArrayBuffer[] {
  if ('error' in reply) return [];
  const { value } = reply;
  if (value instanceof Uint32Array) return [value.buffer as ArrayBuffer];
  if ('tokens' in value) return [value.tokens.buffer as ArrayBuffer];
  return [value.table.bytes.buffer as ArrayBuffer, value.table.offsets.buffer as ArrayBuffer];
}

main();
