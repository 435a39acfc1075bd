// The worker thread of one tokenizer: reads, builds, renders and encodes.

import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { OpenLoraError } from '../errors.js';
import { readTemplateFiles } from './chat-template-files.js';
import { ChatTemplates, readChatTemplates, templateTrees } from './chat-template.js';
import { buildTokenTable, vocabularyOf } from './token-bytes.js';
import { TextEncoding, checkedIds } from './tokenizer-encode.js';
import { readTokenizerJson } from './tokenizer-json.js';
import { TOKENIZER_WORKER, type TokenizerRequests } from './tokenizer-protocol.js';
import { serve, type Answers } from './worker-port.js';

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

async function open({
  folder,
  vocabSize,
}: TokenizerRequests['open']['request']): Promise<{ opened: Opened; reply: TokenizerRequests['open']['reply'] }> {
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
    reply: {
      table,
      vocabulary: vocabularyOf(table.offsets, addedTokens.at(-1)?.id),
      addedTokens: JSON.stringify(addedTokens.map(({ id, content, special }) => ({ id, content, special }))),
      templates,
      trees: templateTrees(templates),
    },
  };
}

function encode({ encoding, vocabSize }: Opened, ...how: Parameters<TextEncoding['encode']>): Uint32Array {
  return checkedIds(encoding.encode(...how), vocabSize);
}

let opened: Opened | undefined;

function tokenizer(): Opened {
  if (!opened) throw new OpenLoraError('ERR_TOKENIZER_WORKER', 'the tokenizer was not opened');
  return opened;
}

const answers: Answers<TokenizerRequests> = {
  open: async (request) => {
    const result = await open(request);
    opened = result.opened;
    const { bytes, offsets } = result.reply.table;
    return { value: result.reply, transfer: [bytes.buffer, offsets.buffer] };
  },
  // eslint-disable-next-line @typescript-eslint/require-await -- errors arrive as rejections
  encode: async ({ text, addSpecialTokens, parseSpecialTokens }) => {
    const tokens = encode(tokenizer(), text, addSpecialTokens, parseSpecialTokens ? 'none' : 'all');
    return { value: tokens, transfer: [tokens.buffer] };
  },
  // eslint-disable-next-line @typescript-eslint/require-await -- errors arrive as rejections
  encodeChat: async ({ messages, options, parseSpecialTokens }) => {
    const { templates, specialTokens } = tokenizer();
    const { text, inputs } = templates.renderMarked(messages, options, parseSpecialTokens ? [] : specialTokens);
    const tokens = encode(tokenizer(), text, false, inputs);
    return { value: { tokens, text }, transfer: [tokens.buffer] };
  },
};

// One after the other: a later text would not be encoded sooner for being begun.
serve(answers, TOKENIZER_WORKER.failures, 1);
