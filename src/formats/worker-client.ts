// The owner's side of a worker thread that answers requests.

import { existsSync } from 'node:fs';
import { SHARE_ENV, Worker, type WorkerOptions } from 'node:worker_threads';
import { OpenLoraError } from '../errors.js';
import { fromWire, type Failures, type FromWorker, type Requests, type ToWorker } from './worker-protocol.js';

/**
 * In the package a worker lies beside every chunk that can ask for it (dist/ is flat). When openlora itself runs from
 * TypeScript (its own tests), a worker can't: there it is .cache/NAME.mjs, which vitest's global set-up
 * (test/support/build-workers.ts) bundles anew for each run, or else that of the last `npm run build:ts`.
 */
function workerUrl(name: string): URL {
  const packaged = new URL(`./${name}.js`, import.meta.url);
  if (!import.meta.url.endsWith('.ts')) return packaged;
  const fresh = new URL(`../../.cache/${name}.mjs`, import.meta.url);
  return existsSync(fresh) ? fresh : new URL(`../../dist/${name}.js`, import.meta.url);
}

/** What a worker is; `name` is its file's. */
export interface WorkerKind {
  name: string;
  failures: Failures;
  /** What can't be posted to the worker. */
  refusal: { code: string; message: string };
}

interface Job {
  resolve(value: unknown): void;
  reject(error: OpenLoraError): void;
}

/**
 * Sends requests to a worker thread, which keeps the process alive only while one is unanswered. The first is `open`. When
 * the thread dies, what it had not answered rejects, and the next request starts a new one, which is opened as the first was.
 */
export class WorkerClient<R extends Requests> {
  readonly #kind: WorkerKind;
  readonly #open: R['open']['request'];
  readonly #workerAt: URL;
  readonly #jobs = new Map<number, Job>();
  #worker: Worker | undefined;
  #jobsBegun = 0;
  #isClosed = false;

  constructor(kind: WorkerKind, open: R['open']['request'], workerAt = workerUrl(kind.name)) {
    this.#kind = kind;
    this.#open = open;
    this.#workerAt = workerAt;
  }

  /** Starts the thread, and resolves to what it read. */
  open(signal?: AbortSignal): Promise<R['open']['reply']> {
    return this.request('open', this.#open, signal);
  }

  /** Aborted by `signal`, it rejects at once; the worker hears of it and drops what it can. */
  async request<K extends keyof R & string>(
    kind: K,
    request: R[K]['request'],
    signal?: AbortSignal,
  ): Promise<R[K]['reply']> {
    if (this.#isClosed) throw this.#closed();
    if (signal?.aborted) throw aborted(signal);
    const worker = this.#worker ?? this.#start(kind === 'open');
    const id = ++this.#jobsBegun;
    const reply = this.#send(worker, id, kind, request);
    if (!signal) return reply;
    let onAbort: (() => void) | undefined;
    const abort = new Promise<never>((_, reject) => {
      onAbort = (): void => {
        worker.postMessage({ id } satisfies ToWorker);
        reject(aborted(signal));
      };
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
    this.#failAll(this.#closed());
    await worker?.terminate();
  }

  #start(isOpening: boolean): Worker {
    const { name, failures } = this.#kind;
    // Of the time that starting takes this thread, a copy of the environment would be a third, and pipes to the process's
    // output, to which a worker of ours has nothing to say, another.
    const options: WorkerOptions = { execArgv: [], env: SHARE_ENV, stdout: true, stderr: true };
    const worker = new Worker(this.#workerAt, { name: `openlora-${name}`, ...options });
    this.#worker = worker;
    const onDeath = (reason: string, cause?: unknown): void => {
      if (this.#worker !== worker) return;
      this.#worker = undefined;
      this.#failAll(new OpenLoraError(failures.code, `the thread of ${failures.whose} ${reason}`, {}, cause));
    };
    worker.on('message', (reply: FromWorker) => this.#settle(reply));
    worker.on('error', (error) => onDeath(`failed: ${error instanceof Error ? error.message : String(error)}`, error));
    worker.on('exit', (code) => onDeath(`ended with code ${code}`));
    // A thread that replaces a dead one reads the files again; its reply matters only to whoever asked for it.
    if (!isOpening) this.#send(worker, ++this.#jobsBegun, 'open', this.#open).catch(() => undefined);
    return worker;
  }

  #send(worker: Worker, id: number, kind: string, request: unknown): Promise<unknown> {
    return new Promise((resolve, reject) => {
      try {
        worker.postMessage({ id, kind, request } satisfies ToWorker);
      } catch (error) {
        const { code, message } = this.#kind.refusal;
        const why = error instanceof Error ? error.message : String(error);
        return reject(new OpenLoraError(code, `${message}: ${why}`, {}, error));
      }
      this.#jobs.set(id, { resolve, reject });
      worker.ref();
    });
  }

  #settle(reply: FromWorker): void {
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

  #closed(): OpenLoraError {
    return new OpenLoraError('ERR_CLOSED', `${this.#kind.failures.whose} was disposed`);
  }
}

function aborted(signal: AbortSignal): OpenLoraError {
  return new OpenLoraError('ERR_ABORTED', 'the signal was aborted', {}, signal.reason);
}
