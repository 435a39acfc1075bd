// Where transformers (5.23) saves chat templates as files: the default one beside the tokenizer, named ones in a folder.

import { readdir } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { OpenLoraError } from '../errors.js';
import { isMissing } from './json.js';

const DEFAULT = 'chat_template.jinja';
const NAMED_FOLDER = 'additional_chat_templates';
const SUFFIX = '.jinja';

/**
 * Jinja source by name; empty where a folder has no such file. `read` gives undefined for a file that isn't there. Throws `code`
 * where the folder of named ones can't be read.
 */
export async function readTemplateFiles(
  folder: string,
  code: string,
  read: (path: string) => Promise<string | undefined>,
): Promise<Record<string, string>> {
  const namedFolder = join(folder, NAMED_FOLDER);
  const named = await readdir(namedFolder).catch((cause: unknown) => {
    if (isMissing(cause)) return [];
    throw new OpenLoraError(code, `${namedFolder} can't be read: ${(cause as Error).message}`, {}, cause);
  });
  const paths = named.filter((name) => name.endsWith(SUFFIX)).map((name) => join(NAMED_FOLDER, name));
  const templates: Record<string, string> = {};
  const add = async (name: string, path: string) => {
    const text = await read(join(folder, path));
    if (text !== undefined) templates[name] = text;
  };
  await add('default', DEFAULT);
  for (const path of paths.sort()) await add(basename(path, SUFFIX), path);
  return templates;
}
