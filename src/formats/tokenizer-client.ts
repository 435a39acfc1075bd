// The owner's side of a tokenizer's worker thread.

import { existsSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import { OpenLoraError } from '../errors.js';
import { fromWire, type WorkerReplies, type WorkerReply, type WorkerRequest } from './tokenizer-protocol.js';

/**
 * In the package the worker lies beside every chunk that can ask for it (dist/ is flat). When openlora itself runs from
 * TypeScript (its own tests), a worker can't: there it is .cache/tokenizer-worker.mjs, which vitest's global set-up
 * (test/tokenizer/build-worker.ts) bundles anew for each run, or else that of the last `npm run build:ts`.
 */
function workerUrl(): URL {
  const packaged = new URL('./tokenizer-worker.js', import.meta.url);
  if (!import.meta.url.endsWith('.ts')) return packaged;
  const fresh = new URL('../../.cache/tokenizer-worker.mjs', import.meta.url);
  return existsSync(fresh) ? fresh : new URL('../../dist/tokenizer-worker.js', import.meta.url);
}

type RequestOf<K extends WorkerRequest['kind']> = Extract<WorkerRequest, { kind: K }>;

interface Job {
  resolve(value: WorkerReplies[keyof WorkerReplies]): void;
  reject(error: OpenLoraError): void;
}

/**
 * Sends requests to a worker thread, which keeps the process alive only while one is unanswered. When the thread dies, what
 * it had not answered rejects with ERR_TOKENIZER_WORKER, and the next request starts a new one.
 */
export class TokenizerClient {
  readonly #open: RequestOf<'open'>;
  readonly #workerAt: URL;
  readonly #jobs = new Map<number, Job>();
  #worker: Worker | undefined;
  #jobsBegun = 0;
  #isClosed = false;

  constructor(open: RequestOf<'open'>, workerAt = workerUrl()) {
    this.#open = open;
    this.#workerAt = workerAt;
  }

  /** Starts the thread, and resolves to what it read. */
  open(signal?: AbortSignal): Promise<WorkerReplies['open']> {
    return this.request(this.#open, signal);
  }

  async request<K extends WorkerRequest['kind']>(
    request: RequestOf<K>,
    signal?: AbortSignal,
  ): Promise<WorkerReplies[K]> {
    if (this.#isClosed) throw closed();
    if (signal?.aborted) throw aborted(signal);
    const worker = this.#worker ?? this.#start(request.kind === 'open');
    const reply = this.#send(worker, request);
    if (!signal) return reply;
    let onAbort: (() => void) | undefined;
    const abort = new Promise<never>((_, reject) => {
      onAbort = (): void => reject(aborted(signal));
      signal.addEventListener('abort', onAbort, { once: true });
    });
    try {
      return await Promise.race([reply, abort]);
    } finally {
      if (onAbort) signal.removeEventListener('abort', onAbort);
    }
  }

  /** Ends the thread; unanswered requests reject with ERR_CLOSED. */
  async close(): Promise<void> {
    this.#isClosed = true;
    const worker = this.#worker;
    this.#worker = undefined;
    this.#failAll(closed());
    await worker?.terminate();
  }

  #start(isOpening: boolean): Worker {
    const worker = new Worker(this.#workerAt, { name: 'openlora-tokenizer', execArgv: [] });
    this.#worker = worker;
    const onDeath = (reason: string, cause?: unknown): void => {
      if (this.#worker !== worker) return;
      this.#worker = undefined;
      this.#failAll(new OpenLoraError('ERR_TOKENIZER_WORKER', `the tokenizer's thread ${reason}`, {}, cause));
    };
    worker.on('message', (reply: WorkerReply) => this.#settle(reply));
    worker.on('error', (error) => onDeath(`failed: ${error instanceof Error ? error.message : String(error)}`, error));
    worker.on('exit', (code) => onDeath(`ended with code ${code}`));
    // A thread that replaces a dead one reads the files again; its reply matters only to whoever asked for it.
    if (!isOpening) this.#send(worker, this.#open).catch(() => undefined);
    return worker;
  }

  #send<K extends WorkerRequest['kind']>(worker: Worker, request: RequestOf<K>): Promise<WorkerReplies[K]> {
    const id = ++this.#jobsBegun;
    return new Promise((resolve, reject) => {
      try {
        worker.postMessage({ id, request });
      } catch (error) {
        // Only a conversation can hold what can't be copied: a function, say.
        const message = error instanceof Error ? error.message : String(error);
        return reject(new OpenLoraError('ERR_CHAT_TEMPLATE', `the messages are no plain data: ${message}`, {}, error));
      }
      this.#jobs.set(id, { resolve: resolve as Job['resolve'], reject });
      worker.ref();
    });
  }

  #settle(reply: WorkerReply): void {
    const job = this.#jobs.get(reply.id);
    if (!job) return;
    this.#jobs.delete(reply.id);
    if (this.#jobs.size === 0) this.#worker?.unref();
    if ('error' in reply) job.reject(fromWire(reply.error));
    else job.resolve(reply.value);
  }

  #failAll(error: OpenLoraError): void {
    const jobs = [...this.#jobs.values()];
    this.#jobs.clear();
    for (const job of jobs) job.reject(error);
  }
}

function closed(): OpenLoraError {
  return new OpenLoraError('ERR_CLOSED', 'the tokenizer was disposed');
}

function aborted(signal: AbortSignal): OpenLoraError {
  return new OpenLoraError('ERR_ABORTED', 'the signal was aborted', {}, signal.reason);
}
