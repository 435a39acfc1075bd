// Paths as completion offers them: folders to walk through, and among them those that hold what is wanted.

import { existsSync, readFileSync, readdirSync, statSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import type { PathKind } from './args.js';

/** More entries than this in one folder are not looked at: completion answers while a person waits. */
const ENTRIES_MAX = 2_000;

export interface Candidate {
  /** What the word becomes. A folder that is only on the way ends with a slash. */
  value: string;
  summary?: string;
}

/** What `text`, the beginning of a path, can become. What is wanted comes first. */
export function completePath(text: string, kind: PathKind): Candidate[] {
  const slash = text.lastIndexOf('/') + 1;
  const [head, start] = [text.slice(0, slash), text.slice(slash)];
  const folder = expandHome(head) || '.';
  const found: Candidate[] = [];
  const onTheWay: Candidate[] = [];
  for (const name of namesIn(folder)) {
    const isHidden = name.startsWith('.') && !start.startsWith('.');
    if (!name.startsWith(start) || isHidden || name === 'node_modules' || /[\n\t]/.test(name)) continue;
    const path = join(folder, name);
    if (!isFolder(path)) {
      if (kind === 'file') found.push({ value: head + name });
      continue;
    }
    const summary = kind === 'file' ? undefined : whatIs(path, kind);
    if (summary === undefined) onTheWay.push({ value: `${head}${name}/` });
    else found.push({ value: head + name, summary });
  }
  return [...found, ...onTheWay];
}

/** `~` and `~/…` as a shell reads them. */
export function expandHome(path: string): string {
  return path === '~' || path.startsWith('~/') ? homedir() + path.slice(1) : path;
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder).slice(0, ENTRIES_MAX).sort();
  } catch {
    return [];
  }
}

function isFolder(path: string): boolean {
  try {
    return statSync(path).isDirectory();
  } catch {
    return false;
  }
}

/** In a few words, if the folder holds what is wanted. */
function whatIs(path: string, kind: PathKind): string | undefined {
  if (kind === 'folder') return '';
  if (existsSync(join(path, 'adapter_config.json'))) {
    if (kind === 'base') return undefined;
    const { r, base_model_name_or_path: base } = readConfig(join(path, 'adapter_config.json'));
    const rank = typeof r === 'number' ? ` of rank ${r}` : '';
    return `adapter${rank}${typeof base === 'string' && base !== '' ? ` for ${base}` : ''}`.replace(/\p{Cc}/gu, ' ');
  }
  if (kind === 'adapter' || !existsSync(join(path, 'config.json'))) return undefined;
  const { model_type: family } = readConfig(join(path, 'config.json'));
  return `base${typeof family === 'string' ? `: ${family}` : ''}`.replace(/\p{Cc}/gu, ' ');
}

function readConfig(path: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(readFileSync(path, 'utf8'));
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {};
  } catch {
    return {};
  }
}
