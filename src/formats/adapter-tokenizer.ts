// What PEFT's users save beside an adapter: the tokenizer that they trained with, and a chat template.

import { join } from 'node:path';
import { OpenLoraError } from '../errors.js';
import { isJsonObject, parseJsonObject, readJsonObject, readTextFile, readTopLevelValues } from './json.js';
import type { Pacer } from './pacer.js';

const CODE = 'ERR_ADAPTER_TOKENIZER';

/**
 * Throws ERR_ADAPTER_VOCABULARY if the adapter's tokenizer adds a token that the base doesn't have: its id is
 * `vocabulary` or more. Such tokens were trained in rows that the base lacks.
 */
export async function checkAddedTokens(
  folder: string,
  present: string[],
  vocabulary: number,
  pacer: Pacer,
): Promise<void> {
  const check = (id: unknown, content: unknown, file: string) => {
    if (typeof id !== 'number' || id < vocabulary) return;
    const message = `${file} adds the token ${JSON.stringify(content)} as ${id}, the base's vocabulary has ${vocabulary}`;
    throw new OpenLoraError('ERR_ADAPTER_VOCABULARY', message, { token: content, id });
  };
  if (present.includes('tokenizer.json')) {
    const values = await readTopLevelValues(join(folder, 'tokenizer.json'), ['added_tokens'], CODE, pacer);
    const tokens = values?.get('added_tokens') ?? [];
    if (!Array.isArray(tokens)) throw new OpenLoraError(CODE, 'tokenizer.json: added_tokens is not a list');
    for (const token of tokens as unknown[]) {
      if (isJsonObject(token)) check(token.id, token.content, 'tokenizer.json');
    }
  }
  if (!present.includes('added_tokens.json')) return;
  const added = await readJsonObject(join(folder, 'added_tokens.json'), CODE);
  for (const [content, id] of Object.entries(added ?? {})) check(id, content, 'added_tokens.json');
}

/** The adapter's own chat template, in the order in which transformers looks: a file of its own, then the config. */
export async function readAdapterChatTemplate(
  folder: string,
  present: string[],
  pacer: Pacer,
): Promise<string | undefined> {
  if (present.includes('chat_template.jinja')) return readTextFile(join(folder, 'chat_template.jinja'), CODE);
  if (present.includes('chat_template.json')) {
    const path = join(folder, 'chat_template.json');
    const text = await readTextFile(path, CODE);
    if (text !== undefined) return defaultTemplate(parseJsonObject(text, path, CODE).chat_template);
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
