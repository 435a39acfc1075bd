// A local stand-in of an S3-compatible store: objects in buckets, and access keys that may read some of them. It checks
// signatures by itself, from what arrived.

import { createHash, createHmac } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { LocalServer } from '../support/local-server.js';

export interface StandInKey {
  secret: string;
  sessionToken?: string;
  /** What its owner may read: the beginning of `/bucket/key`. */
  reads: string;
}

export class S3StandIn extends LocalServer {
  /** By `/bucket/key`. */
  readonly objects = new Map<string, Buffer>();
  readonly keys = new Map<string, StandInKey>();
  readonly requests: { path: string; range: string | undefined; status: number }[] = [];
  region = 'eu-test-1';
  /** What to answer in place of the object, in turn; 0: the connection breaks after `afterBytes`, -1: silence. */
  readonly failures: { path: string; status: number; afterBytes?: number; retryAfter?: string }[] = [];
  /** Headers of an object. */
  readonly headers = new Map<string, Record<string, string>>();
  ignoresRanges = false;
  /** Called before an object is sent. */
  onSend: ((path: string) => void) | undefined;

  /** `path` is `/bucket/key`. */
  add(path: string, content: Buffer | string): void {
    this.objects.set(path, Buffer.from(content));
  }

  sentOf(file: string): (string | undefined)[] {
    return this.requests.filter(({ path, status }) => path.endsWith(file) && status < 300).map(({ range }) => range);
  }

  protected answer(request: IncomingMessage, response: ServerResponse): void {
    const path = decodeURIComponent(request.url!.split('?')[0]!);
    const { range } = request.headers;
    const failure = this.failures.find((next) => path.endsWith(next.path));
    const refuse = (status: number, code: string, headers: Record<string, string> = {}) => {
      this.requests.push({ path, range, status });
      response.writeHead(status, { 'content-type': 'application/xml', ...headers });
      response.end(`<?xml version="1.0"?><Error><Code>${code}</Code><Message>no</Message></Error>`);
    };
    if (failure && failure.status !== 0) {
      this.failures.splice(this.failures.indexOf(failure), 1);
      if (failure.status < 0) return;
      const headers = failure.retryAfter === undefined ? {} : { 'retry-after': failure.retryAfter };
      return refuse(failure.status, failure.status === 503 ? 'SlowDown' : 'Failed', headers);
    }
    const refusal = this.#refusal(request, path);
    if (refusal !== undefined) return refuse(403, refusal);
    if (![...this.objects.keys()].some((key) => key.startsWith(`/${path.split('/')[1]!}/`))) {
      return refuse(404, 'NoSuchBucket');
    }
    const content = this.objects.get(path);
    if (content === undefined) return refuse(404, 'NoSuchKey');
    this.onSend?.(path);
    const [, from] = (!this.ignoresRanges && /^bytes=(\d+)-$/.exec(range ?? '')) || [];
    const rest = content.subarray(Number(from ?? 0));
    const status = from === undefined ? 200 : 206;
    this.requests.push({ path, range, status });
    const own = this.headers.get(path);
    response.writeHead(status, {
      etag: `"${createHash('md5').update(content).digest('hex')}"`,
      ...(own?.['transfer-encoding'] === undefined ? { 'content-length': rest.length } : {}),
      ...own,
    });
    if (failure === undefined) return void response.end(rest);
    this.failures.splice(this.failures.indexOf(failure), 1);
    response.write(rest.subarray(0, failure.afterBytes), () => setTimeout(() => response.destroy(), 10));
  }

  /** Why the request is not let in: the signature as the documentation has it, step by step, from the raw request. */
  #refusal(request: IncomingMessage, path: string): string | undefined {
    const header = (name: string) => String(request.headers[name] ?? '');
    const given = /^AWS4-HMAC-SHA256 Credential=([^/]+)\/(\d{8})\/([^/]+)\/s3\/aws4_request,SignedHeaders=([\w;-]+),Signature=([0-9a-f]{64})$/.exec(header('authorization')); // prettier-ignore
    if (given === null) return 'AccessDenied';
    const [, id, day, region, names, signature] = given as unknown as string[];
    const key = this.keys.get(id!);
    if (key === undefined) return 'InvalidAccessKeyId';
    if (region !== this.region) return 'AuthorizationHeaderMalformed';
    const time = header('x-amz-date');
    const sentAt = Date.parse(time.replace(/^(....)(..)(..T..)(..)(..Z)$/, '$1-$2-$3:$4:$5'));
    if (!(Math.abs(Date.now() - sentAt) < 900_000) || !time.startsWith(day!)) return 'RequestTimeTooSkewed';
    const wanted = Object.keys(request.headers).filter((name) => name === 'host' || name.startsWith('x-amz-'));
    if (wanted.some((name) => !names!.split(';').includes(name))) return 'AccessDenied';
    if (key.sessionToken !== undefined && header('x-amz-security-token') !== key.sessionToken) return 'InvalidToken';
    let canonical = `GET\n${request.url!.split('?')[0]!}\n\n`;
    for (const name of names!.split(';')) canonical += `${name}:${header(name)}\n`;
    canonical += `\n${names}\n${header('x-amz-content-sha256')}`;
    let toSign = `AWS4-HMAC-SHA256\n${time}\n${day}/${region}/s3/aws4_request\n`;
    toSign += createHash('sha256').update(canonical).digest('hex');
    const dateKey = createHmac('sha256', `AWS4${key.secret}`).update(day!).digest();
    const regionKey = createHmac('sha256', dateKey).update(region).digest();
    const serviceKey = createHmac('sha256', regionKey).update('s3').digest();
    const signingKey = createHmac('sha256', serviceKey).update('aws4_request').digest();
    if (createHmac('sha256', signingKey).update(toSign).digest('hex') !== signature) return 'SignatureDoesNotMatch';
    return path.startsWith(key.reads) ? undefined : 'AccessDenied';
  }
}
