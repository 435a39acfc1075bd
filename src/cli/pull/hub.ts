// The hub as this command sees it: what a repository holds at a revision, and the bytes of a file from an offset on.

import { HubApiError, downloadFile, listFiles, modelInfo } from '@huggingface/hub';
import { CliError } from '../errors.js';
import type { HubFile } from './files.js';

export interface HubRepo {
  name: string;
  revision: string;
  hubUrl: string;
  accessToken: string | undefined;
  signal: AbortSignal;
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
    const { sha } = await modelInfo({
      ...common(repo),
      name: repo.name,
      revision: repo.revision,
      additionalFields: ['sha'],
    });
    // The commit names folders of the cache.
    if (!/^[0-9a-f]{40}$/.test(sha)) throw new CliError('ERR_HUB', `${repo.hubUrl}: '${sha}' is no commit`);
    return sha;
  });
}

export async function filesOf(repo: HubRepo, commit: string): Promise<HubFile[]> {
  return await explained(repo, async () => {
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
    const blob = await downloadFile({
      ...common(repo),
      repo: { type: 'model', name: repo.name },
      path,
      revision: commit,
      xet: false,
    });
    if (blob === null) throw new CliError('ERR_HUB_NOT_FOUND', `${repo.name}: ${path} has gone from the repository`);
    return blob.slice(offset).stream() as ReadableStream<Uint8Array>;
  });
}

/** The hub's refusals, as what to do about them. */
async function explained<T>(repo: HubRepo, call: () => Promise<T>): Promise<T> {
  try {
    return await call();
  } catch (error) {
    throw error instanceof HubApiError ? refusal(repo, error) : unreachable(repo, error);
  }
}

function refusal(repo: HubRepo, error: HubApiError): CliError {
  const page = `${repo.hubUrl}/${repo.name}`;
  const status = `${repo.hubUrl} answered ${error.statusCode}`;
  const hasToken = repo.accessToken !== undefined;
  switch (error.statusCode) {
    case 401:
      // The hub says 401, not 404, to strangers who ask for what doesn't exist.
      return hasToken
        ? new CliError(
            'ERR_HUB_AUTH',
            `${repo.name}: the token was refused (${status})`,
            'a new token in HF_TOKEN, from https://huggingface.co/settings/tokens',
          )
        : new CliError(
            'ERR_HUB_AUTH',
            `${repo.name}: no such repository, or it is private or gated (${status})`,
            `check the name; if it is private or gated: HF_TOKEN=hf_… openlora pull ${repo.name}`,
          );
    case 403:
      return new CliError(
        'ERR_HUB_AUTH',
        `${repo.name}: access is not granted to ${hasToken ? 'this token' : 'strangers'} (${status})`,
        `accept the terms at ${page}${hasToken ? '' : ', then set HF_TOKEN'}`,
      );
    case 404:
      return new CliError(
        'ERR_HUB_NOT_FOUND',
        `${repo.name}: no such repository, or no revision '${repo.revision}' in it (${status})`,
        `look at ${page}`,
      );
    case 429:
      return new CliError(
        'ERR_HUB_RATE',
        `${repo.name}: too many requests (${status})`,
        'the same command in a minute: it goes on where it stopped',
      );
    default:
      return new CliError('ERR_HUB', `${repo.name}: ${status}`, 'the same command again: it goes on where it stopped');
  }
}

function unreachable(repo: HubRepo, error: unknown): unknown {
  if (!(error instanceof TypeError) || error.message !== 'fetch failed') return error;
  const cause =
    error.cause instanceof Error ? error.cause.message || ((error.cause as NodeJS.ErrnoException).code ?? '') : '';
  return new CliError(
    'ERR_HUB_UNREACHABLE',
    `${repo.hubUrl} can't be reached: ${cause || error.message}`,
    'the same command again: it goes on where it stopped; HF_ENDPOINT names a mirror',
  );
}
