// What PEFT's users save beside an adapter: the tokenizer that they trained with, and a chat template.

import { join } from 'node:path';
import { OpenLoraError } from '../errors.js';
import { isJsonObject, readJsonObject, readTextFile, readTopLevelValues, type JsonObject } from './json.js';
import type { Pacer } from './pacer.js';

const CODE = 'ERR_ADAPTER_TOKENIZER';

interface AddedToken {
  id: number;
  content: unknown;
  file: string;
}

/**
 * Throws ERR_ADAPTER_VOCABULARY if the adapter's tokenizer adds a token that the base doesn't have: its id is
 * `vocabulary` or more, and the base's own tokenizer (in `basePath`) doesn't add the same. Such tokens were trained in
 * rows that the base lacks.
 */
export async function checkAddedTokens(
  folder: string,
  present: string[],
  basePath: string,
  vocabulary: number,
  pacer: Pacer,
): Promise<void> {
  const beyond: AddedToken[] = [];
  const add = (id: unknown, content: unknown, file: string) => {
    if (typeof id === 'number' && id >= vocabulary) beyond.push({ id, content, file });
  };
  if (present.includes('tokenizer.json')) {
    for (const { id, content } of await addedTokens(folder, pacer)) add(id, content, 'tokenizer.json');
  }
  if (present.includes('added_tokens.json')) {
    const added = await readJsonObject(join(folder, 'added_tokens.json'), CODE);
    for (const [content, id] of Object.entries(added ?? {})) add(id, content, 'added_tokens.json');
  }
  if (beyond.length === 0) return;
  const known = await addedTokens(basePath, pacer);
  const isKnown = (token: AddedToken) => known.some(({ id, content }) => id === token.id && content === token.content);
  for (const token of beyond) {
    if (isKnown(token)) continue;
    const { id, content, file } = token;
    const message = `${file} adds the token ${JSON.stringify(content)} as ${id}, the base's vocabulary has ${vocabulary}`;
    throw new OpenLoraError('ERR_ADAPTER_VOCABULARY', message, { token: content, id });
  }
}

/** `added_tokens` of a folder's tokenizer.json; none if there is no such file. */
async function addedTokens(folder: string, pacer: Pacer): Promise<JsonObject[]> {
  const values = await readTopLevelValues(join(folder, 'tokenizer.json'), ['added_tokens'], CODE, pacer);
  const tokens = values?.get('added_tokens') ?? [];
  if (!Array.isArray(tokens)) throw new OpenLoraError(CODE, 'tokenizer.json: added_tokens is not a list');
  return (tokens as unknown[]).filter(isJsonObject);
}

/** The adapter's own chat template, in the order in which transformers looks: a file of its own, then the config. */
export async function readAdapterChatTemplate(
  folder: string,
  present: string[],
  pacer: Pacer,
): Promise<string | undefined> {
  if (present.includes('chat_template.jinja')) return readTextFile(join(folder, 'chat_template.jinja'), CODE);
  if (present.includes('chat_template.json')) {
    const own = await readJsonObject(join(folder, 'chat_template.json'), CODE);
    if (own !== undefined) return defaultTemplate(own.chat_template);
  }
  if (!present.includes('tokenizer_config.json')) return undefined;
  const values = await readTopLevelValues(join(folder, 'tokenizer_config.json'), ['chat_template'], CODE, pacer);
  return defaultTemplate(values?.get('chat_template'));
}

/** One template, or a list of named ones of which `default` is meant. */
function defaultTemplate(value: unknown): string | undefined {
  if (typeof value === 'string') return value;
  if (!Array.isArray(value)) return undefined;
  const found = (value as unknown[]).find((item) => isJsonObject(item) && item.name === 'default');
  return isJsonObject(found) && typeof found.template === 'string' ? found.template : undefined;
}
