// Adapters in a folder of folders.

import { readdir, realpath } from 'node:fs/promises';
import { join, sep } from 'node:path';
import { OpenLoraError } from '../errors.js';
import { partsOfName } from './confined-name.js';
import type { AdapterResolver } from './types.js';
import { checkFunction, checkPath } from './validate.js';

/**
 * Where the adapters are: one folder for all, or one for each tenant (null: none). A tenant's name is whatever a request says:
 * look its folder up. One that is joined to a path, `..` or `/` say, is another tenant's folder, or any.
 */
export type ResolverRoot = string | ((tenant: string | undefined) => string | null | Promise<string | null>);

/**
 * A resolver that takes an id, `alice` or `team/alice`, for the name of a PEFT folder below `root`. What isn't there, and every
 * id that isn't a relative name (absolute, with `..`, backslashes or control characters), is null. A folder, or a file in it,
 * that is a link to somewhere outside `root` is ERR_ADAPTER_FILES.
 *
 * @example
 * const folders = new Map([['acme', '/adapters/acme'], ['initech', '/adapters/initech']]);
 * const base = await loadBase({ path, adapterResolver: folderResolver((tenant) => folders.get(tenant ?? '') ?? null) });
 */
export function folderResolver(root: ResolverRoot): AdapterResolver {
  if (typeof root === 'string') checkPath('root', root);
  else checkFunction('root', root);
  return async (id, { tenant, signal }) => {
    const parts = partsOfName(id);
    if (parts === undefined) return null;
    const given = typeof root === 'string' ? root : await root(tenant);
    if (given === null) return null;
    const inside = await realpath(checkPath('root', given)).catch(ioErrorOf(given));
    const path = join(inside, ...parts);
    const found = await realpath(path).catch(unlessMissing(path));
    signal.throwIfAborted();
    if (found === undefined) return null;
    checkInside(inside, path, found);
    const isFolder = await checkLinks(inside, found);
    await checkLinks(inside, join(found, 'additional_chat_templates'));
    return isFolder ? found : null;
  };
}

/** Of the files in a folder. Whether it is one. */
async function checkLinks(root: string, folder: string): Promise<boolean> {
  const files = await readdir(folder, { withFileTypes: true }).catch(unlessMissing(folder));
  for (const file of files?.filter((entry) => entry.isSymbolicLink()) ?? []) {
    const link = join(folder, file.name);
    const target = await realpath(link).catch(unlessMissing(link));
    if (target !== undefined) checkInside(root, link, target);
  }
  return files !== undefined;
}

function checkInside(root: string, path: string, target: string): void {
  if (target.startsWith(root.endsWith(sep) ? root : root + sep)) return;
  throw new OpenLoraError('ERR_ADAPTER_FILES', `${path} is a link that leaves ${root}`, { path });
}

const MISSING = ['ENOENT', 'ENOTDIR', 'ENAMETOOLONG'];

/** undefined for what isn't there, or is no folder. */
function unlessMissing(path: string): (error: unknown) => undefined {
  return (error) => {
    const { code } = error as NodeJS.ErrnoException;
    return MISSING.includes(code ?? '') ? undefined : ioErrorOf(path)(error);
  };
}

function ioErrorOf(path: string): (error: unknown) => never {
  return (error) => {
    throw new OpenLoraError('ERR_IO', `${path} can't be read: ${(error as Error).message}`, { path }, error);
  };
}
