// The hub: what a repository holds at a revision, and the bytes of a file from an offset on.
//
// | code                | meaning                                                                                          |
// |---------------------|--------------------------------------------------------------------------------------------------|
// | ERR_HUB_NOT_FOUND   | no such repository, revision or file                                                             |
// | ERR_HUB_AUTH        | it wants a token, or refuses the one that was given; `details.hasToken`, `details.status`        |
// | ERR_HUB_RATE        | too many requests                                                                                |
// | ERR_HUB_UNREACHABLE | no answer at all                                                                                 |
// | ERR_HUB             | any other answer that is an error                                                                |

import type { downloadFile, HubApiError } from '@huggingface/hub';
import { OpenLoraError } from '../errors.js';
import type { HubFile } from './files.js';

/** Loaded for the first call: most programs never ask the hub. */
const library = () => import('@huggingface/hub');

export interface HubRepo {
  name: string;
  revision: string;
  hubUrl: string;
  accessToken: string | undefined;
  signal: AbortSignal;
}

/** Whether it can be a token: what can't would be told in the error of a request that has it in a header. */
export function isHubToken(value: unknown): value is string {
  return typeof value === 'string' && /^hf_\w{1,512}$/.test(value);
}

type Common = Parameters<typeof downloadFile>[0];

function common(repo: HubRepo): Pick<Common, 'hubUrl' | 'fetch'> & { accessToken?: string } {
  return {
    hubUrl: repo.hubUrl,
    fetch: (input, init) => fetch(input, { ...init, signal: repo.signal }),
    ...(repo.accessToken === undefined ? {} : { accessToken: repo.accessToken }),
  };
}

/** The commit that a branch, tag or commit means now. */
export async function commitOf(repo: HubRepo): Promise<string> {
  return await explained(repo, async () => {
    const { modelInfo } = await library();
    const { sha } = await modelInfo({
      ...common(repo),
      name: repo.name,
      revision: repo.revision,
      additionalFields: ['sha'],
    });
    // The commit names folders of the cache.
    if (!/^[0-9a-f]{40}$/.test(sha)) throw new OpenLoraError('ERR_HUB', `${repo.hubUrl}: '${sha}' is no commit`);
    return sha;
  });
}

export async function filesOf(repo: HubRepo, commit: string): Promise<HubFile[]> {
  return await explained(repo, async () => {
    const { listFiles } = await library();
    const files: HubFile[] = [];
    for await (const entry of listFiles({
      ...common(repo),
      repo: { type: 'model', name: repo.name },
      revision: commit,
      recursive: false,
    })) {
      const oid = entry.lfs?.oid ?? entry.oid;
      // The object id names a file of the cache.
      if (entry.type !== 'file' || oid === undefined || !/^[0-9a-f]+$/.test(oid)) continue;
      const digest = { kind: entry.lfs ? ('sha256' as const) : ('git' as const), hex: oid };
      files.push({ path: entry.path, size: entry.lfs?.size ?? entry.size, etag: oid, digest });
    }
    return files;
  });
}

/** Bytes of a file from `offset` on. Plain HTTP ranges (the hub serves Xet files so, too), which can be resumed anywhere. */
export async function openFile(
  repo: HubRepo,
  commit: string,
  path: string,
  offset: number,
): Promise<ReadableStream<Uint8Array>> {
  return await explained(repo, async () => {
    const blob = await findFile(repo, commit, path);
    return blob.slice(offset).stream() as ReadableStream<Uint8Array>;
  });
}

/** Whether this token may read the file: of a gated repository everyone sees the list of files. Rejects if not. */
export async function checkAccess(repo: HubRepo, commit: string, path: string): Promise<void> {
  await explained(repo, () => findFile(repo, commit, path));
}

/** Asks for its first byte. */
async function findFile(repo: HubRepo, commit: string, path: string): Promise<Blob> {
  const { downloadFile } = await library();
  const options = { ...common(repo), repo: { type: 'model' as const, name: repo.name }, path, revision: commit };
  const blob = await downloadFile({ ...options, xet: false });
  if (blob !== null) return blob;
  throw new OpenLoraError('ERR_HUB_NOT_FOUND', `${repo.name}: ${path} has gone from the repository`);
}

/** The hub's refusals, with codes. */
async function explained<T>(repo: HubRepo, call: () => Promise<T>): Promise<T> {
  try {
    return await call();
  } catch (error) {
    const { HubApiError } = await library();
    throw error instanceof HubApiError ? refusal(repo, error) : unreachable(repo, error);
  }
}

function refusal(repo: HubRepo, { statusCode }: HubApiError): OpenLoraError {
  const hasToken = repo.accessToken !== undefined;
  const refused = (code: string, what: string) =>
    new OpenLoraError(code, `${repo.name}: ${what} (${repo.hubUrl} answered ${statusCode})`, {
      repo: repo.name,
      status: statusCode,
      hasToken,
    });
  switch (statusCode) {
    case 401:
      // The hub says 401, not 404, to strangers who ask for what doesn't exist.
      return refused(
        'ERR_HUB_AUTH',
        hasToken ? 'the token was refused' : 'no such repository, or it is private or gated',
      );
    case 403:
      return refused('ERR_HUB_AUTH', `access is not granted to ${hasToken ? 'this token' : 'strangers'}`);
    case 404:
      return refused('ERR_HUB_NOT_FOUND', `no such repository, or no revision '${repo.revision}' in it`);
    case 429:
      return refused('ERR_HUB_RATE', 'too many requests');
    default:
      return refused('ERR_HUB', 'an error of the hub');
  }
}

function unreachable(repo: HubRepo, error: unknown): unknown {
  if (!(error instanceof TypeError) || error.message !== 'fetch failed') return error;
  const cause =
    error.cause instanceof Error ? error.cause.message || ((error.cause as NodeJS.ErrnoException).code ?? '') : '';
  const message = `${repo.hubUrl} can't be reached: ${cause || error.message}`;
  return new OpenLoraError('ERR_HUB_UNREACHABLE', message, { repo: repo.name }, error);
}
