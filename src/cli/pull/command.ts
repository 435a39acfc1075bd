// `openlora pull`: what openlora reads of a hub repository, into the usual cache.

import { getHFHubCachePath } from '@huggingface/hub';
import { readFileSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { OpenLoraError } from '../../errors.js';
import { commitOf, filesOf, isHubToken, type HubRepo } from '../../hub/client.js';
import { downloadSnapshot, type DownloadedFile } from '../../hub/download.js';
import { chooseFiles, isRepoName, isSafeRevision, kindOf, type HubFile, type RepoKind } from '../../hub/files.js';
import { defineCommand } from '../command.js';
import { CliError, UsageError } from '../errors.js';
import { json, type Io } from '../io.js';
import { ProgressBar } from '../progress.js';
import { formatBytes } from '../text.js';

export const pull = defineCommand({
  name: 'pull',
  summary: 'download a base or an adapter from the Hugging Face hub',
  usage: 'ORG/NAME [options]',
  details:
    'Only the files that openlora reads: safetensors, configs, tokenizer. They go to the cache that huggingface_hub and transformers use, and the local folder is printed. An interrupted download goes on where it stopped. HF_TOKEN, HF_HOME, HF_HUB_CACHE and HF_ENDPOINT are honoured.',
  positionals: [{ name: 'ORG/NAME' }],
  options: {
    revision: { kind: 'text', value: 'REV', summary: 'branch, tag or commit (default: main)' },
    'cache-dir': {
      kind: 'text',
      value: 'DIR',
      path: 'folder',
      summary: 'instead of the usual ~/.cache/huggingface/hub',
    },
  },
  examples: [
    'openlora pull Qwen/Qwen2.5-0.5B',
    'openlora generate --base "$(openlora pull Qwen/Qwen2.5-0.5B)" --prompt "Hello"',
  ],
  async run({ options, positionals, io }) {
    const [given] = positionals;
    const repo: HubRepo = {
      name: repoName(given!),
      revision: options.revision ?? 'main',
      hubUrl: (io.env.HF_ENDPOINT || 'https://huggingface.co').replace(/\/+$/, ''),
      accessToken: checkedToken(accessToken(io.env)),
      signal: io.signal,
    };
    if (!isSafeRevision(repo.revision))
      throw new UsageError(`--revision is '${repo.revision}', wanted a branch, tag or commit`);
    const cache = resolve(options['cache-dir'] ?? getHFHubCachePath());
    const pulled = await hinted(repo, () => pullRepo(repo, cache, io));
    if (options.json) json(io, pulled);
    else {
      printSummary(pulled, io);
      io.stdout.line(pulled.path);
    }
    return 0;
  },
});

interface Pulled {
  repo: string;
  revision: string;
  commit: string;
  kind: RepoKind;
  path: string;
  bytes: number;
  /** Of these, bytes that came over the network in this run. */
  fetchedBytes: number;
  files: DownloadedFile[];
}

async function pullRepo(repo: HubRepo, cache: string, io: Io): Promise<Pulled> {
  const commit = await commitOf(repo);
  const all = await filesOf(repo, commit);
  const files = checkedFiles(repo, all);
  const total = files.chosen.reduce((sum, { size }) => sum + size, 0);
  const bar = new ProgressBar(io.stderr, true);
  let snapshot;
  try {
    const onBytes = (path: string, bytes: number) => bar.update(path, bytes, total);
    snapshot = await downloadSnapshot(repo, commit, files.chosen, cache, { onBytes });
  } finally {
    bar.clear();
  }
  const { path, files: done, storage } = snapshot;
  if (repo.revision !== commit) await writeRef(join(storage, 'refs', repo.revision), commit);
  const fetchedBytes = done.reduce((sum, file) => sum + (file.isCached ? 0 : file.bytes - file.resumedBytes), 0);
  return {
    repo: repo.name,
    revision: repo.revision,
    commit,
    kind: files.kind,
    path,
    bytes: total,
    fetchedBytes,
    files: done,
  };
}

/** What to do about the hub's refusals, where this command knows more than the code says. */
async function hinted<T>(repo: HubRepo, action: () => Promise<T>): Promise<T> {
  try {
    return await action();
  } catch (error) {
    if (!OpenLoraError.is(error)) throw error;
    throw new CliError(error.code, error.message, hintOf(repo, error));
  }
}

function hintOf({ name, hubUrl }: HubRepo, { code, details }: OpenLoraError): string | undefined {
  const page = `${hubUrl}/${name}`;
  if (code === 'ERR_HUB_NOT_FOUND') return `look at ${page}`;
  if (code !== 'ERR_HUB_AUTH') return undefined;
  if (details.status === 403) {
    return `accept the terms at ${page}${details.hasToken === true ? '' : ', then set HF_TOKEN'}`;
  }
  if (details.hasToken === true) return 'a new token in HF_TOKEN, from https://huggingface.co/settings/tokens';
  return `check the name; if it is private or gated: HF_TOKEN=hf_… openlora pull ${name}`;
}

/** What will be fetched, or why this repository is of no use. */
function checkedFiles(repo: HubRepo, all: HubFile[]): { kind: RepoKind; chosen: HubFile[] } {
  const paths = all.map(({ path }) => path);
  const kind = kindOf(paths);
  if (!kind) {
    throw new CliError(
      'ERR_HUB_REPO',
      `${repo.name}: neither config.json nor adapter_config.json, so it is no base and no adapter`,
      `look at ${repo.hubUrl}/${repo.name}`,
    );
  }
  const chosen = chooseFiles(all, kind);
  if (!chosen.some(({ path }) => path.endsWith('.safetensors'))) {
    const others = paths.filter((path) => /\.(bin|pt|pth|gguf|h5|msgpack|onnx|safetensors)$/.test(path)).slice(0, 3);
    const has = others.length > 0 ? `; it has ${others.join(', ')}` : '';
    const wanted = kind === 'base' ? 'model*.safetensors' : 'adapter_model.safetensors';
    throw new CliError(
      'ERR_HUB_REPO',
      `${repo.name}: no ${wanted}${has}`,
      'a repository, or a --revision, with safetensors',
    );
  }
  return { kind, chosen };
}

function printSummary(pulled: Pulled, io: Io): void {
  const { style } = io.stderr;
  const fetched =
    pulled.fetchedBytes === 0 ? 'all of it was in the cache' : `${formatBytes(pulled.fetchedBytes)} fetched`;
  const resumed = pulled.files.reduce((sum, file) => sum + file.resumedBytes, 0);
  const went = resumed > 0 ? `, ${formatBytes(resumed)} resumed` : '';
  io.stderr.line(
    `${style.green('✓')} ${pulled.kind} ${pulled.repo} at ${pulled.commit.slice(0, 7)}: ${pulled.files.length} files, ${formatBytes(pulled.bytes)} (${fetched}${went})`,
  );
}

async function writeRef(path: string, commit: string): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, commit);
}

function repoName(given: string): string {
  const name = given.replace(/^https:\/\/(huggingface\.co|hf\.co)\//, '').replace(/\/+$/, '');
  if (isRepoName(name)) return name;
  throw new UsageError(`'${given}' is no name on the hub, wanted ORG/NAME`, 'openlora pull Qwen/Qwen2.5-0.5B');
}

function checkedToken(token: string | undefined): string | undefined {
  if (token === undefined || isHubToken(token)) return token;
  throw new CliError(
    'ERR_HUB_AUTH',
    "the hub's token is none: wanted hf_ and then letters, digits and _ alone",
    'unset HF_TOKEN, or a token from https://huggingface.co/settings/tokens',
  );
}

/** HF_TOKEN, else the token that `hf auth login` left. */
function accessToken(env: NodeJS.ProcessEnv): string | undefined {
  const token = env.HF_TOKEN ?? env.HUGGING_FACE_HUB_TOKEN;
  if (token) return token.trim();
  const home = env.HF_HOME ?? join(env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'huggingface');
  try {
    return readFileSync(env.HF_TOKEN_PATH ?? join(home, 'token'), 'utf8').trim() || undefined;
  } catch {
    return undefined;
  }
}
