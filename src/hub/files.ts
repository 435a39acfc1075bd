// Names on the hub, and which files of a repository openlora reads.

/** Read by a base, by an adapter, or by people who wonder under which terms. */
const NEEDED = new Set([
  'config.json',
  'generation_config.json',
  'adapter_config.json',
  'model.safetensors.index.json',
  'adapter_model.safetensors.index.json',
  'tokenizer.json',
  'tokenizer_config.json',
  'special_tokens_map.json',
  'added_tokens.json',
  'chat_template.jinja',
  'chat_template.json',
]);

export interface HubFile {
  path: string;
  size: number;
  /** Names the blob in the cache: the SHA-256 of a large file, the git object id of a small one. */
  etag: string;
  /** What the content hashes to. */
  digest: { kind: 'sha256' | 'git'; hex: string };
}

export type RepoKind = 'base' | 'adapter';

/** Only files at the top of the repository: checkpoints in sub-folders are other formats of the same weights. */
export function isNeeded(path: string): boolean {
  return (
    NEEDED.has(path) ||
    /^(model|adapter_model)(-\d+-of-\d+)?\.safetensors$/.test(path) ||
    /^licen[cs]e(\.\w+)?$/i.test(path)
  );
}

/** An adapter's repository may carry a copy of the base's config; the adapter's own config decides. */
export function kindOf(paths: readonly string[]): RepoKind | undefined {
  if (paths.includes('adapter_config.json')) return 'adapter';
  return paths.includes('config.json') ? 'base' : undefined;
}

/** Of the needed files those that this kind of repository is read by. */
export function chooseFiles(files: readonly HubFile[], kind: RepoKind): HubFile[] {
  const needed = files.filter(({ path }) => isNeeded(path));
  if (kind === 'base') return needed.filter(({ path }) => !path.startsWith('adapter_'));
  // transformers names the index of an adapter in several files as that of a base.
  const hasShards = needed.some(({ path }) => path.startsWith('adapter_model-'));
  const isIndex = (path: string) => hasShards && path === 'model.safetensors.index.json';
  return needed.filter(({ path }) => isIndex(path) || !/^(model|config)\b/.test(path));
}

/** ORG/NAME; it becomes a folder of the cache and a part of URLs. */
export function isRepoName(name: string): boolean {
  const parts = name.split('/');
  return parts.length === 2 && parts.every((part) => /^(?!\.)[\w.-]+$/.test(part) && !part.includes('..'));
}

/** A branch, tag or commit; it becomes a path under refs/. */
export function isSafeRevision(revision: string): boolean {
  return (
    /^[\w][\w./-]*$/.test(revision) && !revision.split('/').some((part) => part === '' || part === '..' || part === '.')
  );
}
