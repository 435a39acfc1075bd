// A local stand-in of the Hugging Face hub: what `openlora pull` asks of it, with the hub's headers and refusals.

import { createHash } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { LocalServer } from '../support/local-server.js';

export const COMMIT = 'a'.repeat(40);

export interface StandInFile {
  content: Buffer;
  /** Large files are named by their SHA-256, small ones by their git object id. */
  isLfs?: boolean;
}

export class HubStandIn extends LocalServer {
  readonly files = new Map<string, StandInFile>();
  readonly requests: { path: string; range: string | undefined; authorization: string | undefined }[] = [];
  /** Requests without it get 401. */
  token: string | undefined;
  /** How often each download of a file breaks off, and after how many bytes. */
  readonly breaks = new Map<string, { afterBytes: number; times: number }>();
  /** Answers every download with this status. */
  downloadStatus: number | undefined;
  ignoresRanges = false;
  /** Called for each piece of content that is sent. */
  onSend: (() => void) | undefined;

  constructor(readonly repo: string) {
    super();
  }

  add(path: string, content: Buffer | string, isLfs = false): void {
    this.files.set(path, { content: Buffer.from(content), isLfs });
  }

  etagOf(path: string): string {
    const { content, isLfs } = this.files.get(path)!;
    if (isLfs) return createHash('sha256').update(content).digest('hex');
    return createHash('sha1').update(`blob ${content.length}\0`).update(content).digest('hex');
  }

  /** Ranges of the downloads of a file, without the client's questions for its size. */
  downloadsOf(path: string): (string | undefined)[] {
    return this.requests
      .filter((request) => request.path.endsWith(`/${path}`) && request.range !== 'bytes=0-0')
      .map(({ range }) => range);
  }

  protected answer(request: IncomingMessage, response: ServerResponse): void {
    const path = decodeURIComponent(new URL(request.url!, 'http://hub').pathname);
    const { range, authorization } = request.headers;
    this.requests.push({ path, range, authorization });
    if (this.token !== undefined && authorization !== `Bearer ${this.token}`)
      return refuse(response, 401, 'Invalid username or password.');
    const api = `/api/models/${this.repo}`;
    if (path === `${api}/revision/main` || path === `${api}/revision/${COMMIT}`) {
      return sendJson(response, {
        _id: '1',
        id: this.repo,
        sha: COMMIT,
        private: false,
        gated: false,
        downloads: 0,
        likes: 0,
        lastModified: '2025-01-01',
      });
    }
    if (path === `${api}/tree/${COMMIT}`) return sendJson(response, this.#tree());
    const resolve = `/${this.repo}/resolve/${COMMIT}/`;
    const file = path.startsWith(resolve) ? this.files.get(path.slice(resolve.length)) : undefined;
    if (file) return this.#send(path.slice(resolve.length), file, range, response);
    refuse(response, 404, 'Repository not found');
  }

  #tree(): object[] {
    const entries: object[] = [{ type: 'directory', path: 'onnx', oid: 'd'.repeat(40), size: 0 }];
    for (const [path, { content, isLfs }] of this.files) {
      const oid = this.etagOf(path);
      const lfs = { oid, size: content.length, pointerSize: 134 };
      entries.push({
        type: 'file',
        path,
        size: content.length,
        oid: isLfs ? 'e'.repeat(40) : oid,
        ...(isLfs ? { lfs } : {}),
      });
    }
    return entries;
  }

  #send(path: string, { content }: StandInFile, range: string | undefined, response: ServerResponse): void {
    if (this.downloadStatus !== undefined) return refuse(response, this.downloadStatus, 'broken');
    const [, from, to] = /^bytes=(\d+)-(\d*)$/.exec(range ?? '') ?? [];
    const isQuestion = range === 'bytes=0-0';
    const hasRange = from !== undefined && (isQuestion || !this.ignoresRanges);
    const start = hasRange ? Number(from) : 0;
    const end = hasRange && to ? Math.min(Number(to), content.length - 1) : content.length - 1;
    const headers: Record<string, string | number> = {
      etag: `"${this.etagOf(path)}"`,
      'content-length': end - start + 1,
      'accept-ranges': 'bytes',
    };
    if (hasRange) headers['content-range'] = `bytes ${start}-${end}/${content.length}`;
    response.writeHead(hasRange ? 206 : 200, headers);
    const broken = isQuestion ? undefined : this.breaks.get(path);
    if (broken && broken.times > 0) {
      broken.times--;
      response.write(content.subarray(start, Math.min(start + broken.afterBytes, end + 1)), () =>
        setTimeout(() => response.destroy(), 20),
      );
      this.onSend?.();
      return;
    }
    if (!isQuestion) this.onSend?.();
    response.end(content.subarray(start, end + 1));
  }
}

function sendJson(response: ServerResponse, value: unknown): void {
  response.writeHead(200, { 'content-type': 'application/json; charset=utf-8' });
  response.end(JSON.stringify(value));
}

function refuse(response: ServerResponse, status: number, error: string): void {
  response.writeHead(status, { 'content-type': 'application/json; charset=utf-8' });
  response.end(JSON.stringify({ error }));
}
