// Reading from a store over HTTP: retries with a growing pause, silence noticed, and a download that goes on where it broke.

import { createHash } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { OpenLoraError } from '../errors.js';
import { onAbort } from './signals.js';

export interface FetchRules {
  /** Of a request, or of a download without progress; 1: none is repeated. */
  attempts: number;
  /** Milliseconds without an answer, or without a byte of it, that end an attempt. */
  idleMs: number;
  signal: AbortSignal;
}

export interface StoredObject {
  /** Where it is, for messages. */
  name: string;
  /** A GET for its bytes from `offset` on; made anew for each attempt, for it may be signed. */
  request(offset: number): { url: URL; headers: Record<string, string> };
}

/** The last pause of four attempts is 2 s, that of many no more than 8. */
const RETRY_MS = 500;
const RETRY_MS_MAX = 8_000;
/** Of an answer that is an error. */
const REASON_BYTES_MAX = 4096;

/** An answer to a GET; `end` lets go of the connection. */
export interface Answer {
  response: Response;
  body: AsyncGenerator<Uint8Array, void, undefined>;
  end(): void;
}

/**
 * Repeats what fails with an error that may pass. `pauseMs` of its details is how long the store says to wait. Rejects with the
 * last error, or with the signal's reason.
 */
export async function withRetries<T>(
  { attempts, signal }: Pick<FetchRules, 'attempts' | 'signal'>,
  attempt: () => Promise<T>,
): Promise<T> {
  for (let number = 1; ; number++) {
    try {
      return await attempt();
    } catch (error) {
      signal.throwIfAborted();
      if (number >= attempts || !isPassing(error)) throw error;
      await pause(number, error, signal);
    }
  }
}

const PASSING = ['ERR_STORE', 'ERR_HUB', 'ERR_HUB_RATE', 'ERR_HUB_UNREACHABLE'];

function isPassing(error: unknown): error is OpenLoraError {
  return OpenLoraError.is(error) && PASSING.includes(error.code);
}

/** As long as the store says, else with some chance in it: many that failed at once don't come back at once. */
async function pause(number: number, { details }: OpenLoraError, signal: AbortSignal): Promise<void> {
  const growing = RETRY_MS * 2 ** (number - 1) * (0.5 + Math.random() / 2);
  const ms = typeof details.pauseMs === 'number' ? details.pauseMs : growing;
  await sleep(Math.min(RETRY_MS_MAX, ms), undefined, { signal }).catch(() => signal.throwIfAborted());
}

/** One GET. undefined: there is no such object. Rejects with ERR_STORE, ERR_STORE_REFUSED or the signal's reason. */
export async function get(object: StoredObject, offset: number, rules: FetchRules): Promise<Answer | undefined> {
  const attempt = new Attempt(object.name, rules);
  try {
    const { url, headers } = object.request(offset);
    const response = await attempt.during(() => fetch(url, { headers, signal: attempt.signal, redirect: 'manual' }));
    if (response.ok) return { response, body: attempt.read(response), end: () => attempt.end() };
    const reason = await attempt.reasonOf(response);
    attempt.end();
    if (response.status === 404 && !reason.includes('NoSuchBucket')) return undefined;
    throw refusal(object.name, response, reason);
  } catch (error) {
    attempt.end();
    throw attempt.explain(error);
  }
}

/** A request and its answer, which end when the caller's signal does, or when nothing arrives for long. */
class Attempt {
  readonly #controller = new AbortController();
  readonly #letGo: () => void;

  constructor(
    readonly name: string,
    private readonly rules: FetchRules,
  ) {
    const { signal } = rules;
    this.#letGo = onAbort(signal, () => this.#controller.abort(signal.reason));
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  async during<T>(wait: () => Promise<T>): Promise<T> {
    const { idleMs } = this.rules;
    const silent = () => this.#controller.abort(storeError(`${this.name}: nothing arrived for ${idleMs} ms`));
    const timer = setTimeout(silent, idleMs);
    try {
      return await wait();
    } finally {
      clearTimeout(timer);
    }
  }

  /** The time that the reader takes is not the store's. */
  async *read({ body }: Response): AsyncGenerator<Uint8Array, void, undefined> {
    const reader = (body as ReadableStream<Uint8Array> | null)?.getReader();
    try {
      for (;;) {
        const next = reader && (await this.during(() => reader.read()));
        if (next?.value === undefined) return;
        yield next.value;
      }
    } catch (error) {
      throw this.explain(error);
    } finally {
      this.end();
    }
  }

  async reasonOf(response: Response): Promise<string> {
    const chunks: Uint8Array[] = [];
    let bytes = 0;
    for await (const chunk of this.read(response)) {
      chunks.push(chunk);
      bytes += chunk.length;
      if (bytes > REASON_BYTES_MAX) break;
    }
    return Buffer.concat(chunks).subarray(0, REASON_BYTES_MAX).toString();
  }

  end(): void {
    this.#letGo();
    this.#controller.abort();
  }

  explain(error: unknown): unknown {
    if (this.rules.signal.aborted) return this.rules.signal.reason;
    if (OpenLoraError.is(error)) return error;
    const { message, cause } = error as Error;
    const why = cause instanceof Error ? cause.message || ((cause as NodeJS.ErrnoException).code ?? message) : message;
    return storeError(`${this.name} can't be read: ${why}`, {}, error);
  }
}

function refusal(name: string, { status, headers }: Response, reason: string): OpenLoraError {
  // S3 says what it means in XML.
  const [, code] = /<Code>([\w.-]{1,100})<\/Code>/.exec(reason) ?? [];
  const message = `${name}: the store answered ${status}${code === undefined ? '' : `, ${code}`}`;
  const details = { status, ...(code === undefined ? {} : { reason: code }) };
  if (status < 500 && status !== 429 && status !== 408) return new OpenLoraError('ERR_STORE_REFUSED', message, details);
  const seconds = Number(headers.get('retry-after') ?? NaN);
  return storeError(message, { ...details, ...(seconds >= 0 ? { pauseMs: seconds * 1000 } : {}) });
}

function storeError(message: string, details: Record<string, unknown> = {}, cause?: unknown): OpenLoraError {
  return new OpenLoraError('ERR_STORE', message, details, cause);
}

/** All of a small object. ERR_ADAPTER_SIZE for more than `bytesMax`. */
export async function readText(object: StoredObject, bytesMax: number, rules: FetchRules): Promise<string | undefined> {
  return withRetries(rules, async () => {
    const answer = await get(object, 0, rules);
    if (answer === undefined) return undefined;
    const chunks: Uint8Array[] = [];
    let bytes = 0;
    for await (const chunk of answer.body) {
      bytes += chunk.length;
      if (bytes > bytesMax) throw tooLarge(object.name, bytes, bytesMax);
      chunks.push(chunk);
    }
    checkLength(object.name, answer.response, bytes);
    const content = Buffer.concat(chunks);
    checkDigest(object.name, digestOf(answer.response), (kind) => createHash(kind).update(content).digest('hex'));
    return content.toString();
  });
}

/**
 * A large object as a stream that goes on where a connection broke, and that fails at its end if it isn't what the store
 * promised. undefined: there is no such object. ERR_ADAPTER_SIZE for more than `bytesMax`.
 */
export async function openObject(
  object: StoredObject,
  bytesMax: number,
  rules: FetchRules,
): Promise<ObjectStream | undefined> {
  const answer = await withRetries(rules, () => get(object, 0, rules));
  if (answer === undefined) return undefined;
  const size = lengthOf(answer.response);
  if (size !== undefined && size <= bytesMax) return new ObjectStream(object, size, answer, rules);
  answer.end();
  if (size === undefined) throw storeError(`${object.name}: the store doesn't say how many bytes it has`);
  throw tooLarge(object.name, size, bytesMax);
}

export class ObjectStream implements AsyncIterable<Uint8Array> {
  constructor(
    private readonly object: StoredObject,
    private readonly size: number,
    private readonly first: Answer,
    private readonly rules: FetchRules,
  ) {}

  /** Of one that nobody reads. */
  cancel(): void {
    this.first.end();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array, void, undefined> {
    const { object, size, rules } = this;
    const digest = digestOf(this.first.response);
    const hash = digest && createHash(digest.kind);
    let answer = this.first;
    let done = 0;
    for (let failures = 0; ;) {
      try {
        for await (const chunk of answer.body) {
          done += chunk.length;
          failures = 0;
          if (done > size) throw changed(object.name, `more than the ${size} bytes that it has`);
          hash?.update(chunk);
          yield chunk;
        }
        if (done === size) break;
        throw storeError(`${object.name}: the connection ended after ${done} of ${size} bytes`);
      } catch (error) {
        if (++failures >= rules.attempts || !isPassing(error)) throw error;
        await pause(failures, error, rules.signal);
      } finally {
        answer.end();
      }
      answer = await withRetries(rules, () => this.#resume(done));
    }
    checkDigest(object.name, digest, () => hash!.digest('hex'));
  }

  async #resume(offset: number): Promise<Answer> {
    const { name } = this.object;
    const answer = await get(this.object, offset, this.rules);
    if (answer === undefined) throw changed(name, 'it has gone');
    const { response } = answer;
    const isSame = response.headers.get('etag') === this.first.response.headers.get('etag');
    const isRest = response.status === 206 && lengthOf(response) === this.size - offset;
    if (isSame && isRest) return answer;
    answer.end();
    throw changed(name, isSame ? `no range from byte ${offset} on` : 'another content than before');
  }
}

function lengthOf({ headers }: Response): number | undefined {
  const length = Number(headers.get('content-length') ?? NaN);
  return Number.isSafeInteger(length) ? length : undefined;
}

function checkLength(name: string, response: Response, bytes: number): void {
  const length = lengthOf(response);
  if (length !== undefined && length !== bytes) throw storeError(`${name}: got ${bytes} of ${length} bytes`);
}

interface Digest {
  kind: 'sha256' | 'md5';
  hex: string;
}

/** What the store says of the whole content: S3's checksum, or an ETag that is its MD5 (not of several parts, not encrypted). */
function digestOf({ headers }: Response): Digest | undefined {
  const checksum = headers.get('x-amz-checksum-sha256') ?? '';
  if (/^[\w+/]{43}=$/.test(checksum)) return { kind: 'sha256', hex: Buffer.from(checksum, 'base64').toString('hex') };
  const isEncrypted =
    headers.get('x-amz-server-side-encryption')?.startsWith('aws:') ||
    headers.has('x-amz-server-side-encryption-customer-algorithm');
  const [, md5] = /^"?([0-9a-f]{32})"?$/.exec(headers.get('etag') ?? '') ?? [];
  return md5 === undefined || isEncrypted ? undefined : { kind: 'md5', hex: md5 };
}

function checkDigest(name: string, digest: Digest | undefined, made: (kind: Digest['kind']) => string): void {
  if (digest === undefined) return;
  const hex = made(digest.kind);
  if (hex === digest.hex) return;
  const message = `${name}: the content's ${digest.kind} is ${hex.slice(0, 12)}…, the store says ${digest.hex.slice(0, 12)}…`;
  throw new OpenLoraError('ERR_STORE_DIGEST', message, { got: hex, wanted: digest.hex });
}

function changed(name: string, what: string): OpenLoraError {
  return new OpenLoraError('ERR_STORE_DIGEST', `${name} changed while it was read: ${what}`, {});
}

function tooLarge(name: string, bytes: number, bytesMax: number): OpenLoraError {
  const message = `${name}: got ${bytes} bytes or more, wanted at most ${bytesMax}`;
  return new OpenLoraError('ERR_ADAPTER_SIZE', message, { bytesMax });
}
