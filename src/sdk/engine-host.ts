// One open engine: its calls go out here, and every event of the addon comes in here.

import { OpenLoraError } from '../errors.js';
import type { ControlEvent, NativeAddon, NativeEngine, OpenOptions } from '../native/binding.js';
import type { AdapterRegistry } from './adapter.js';
import { Deferred } from './deferred.js';
import { abortedError, closedError, throwIfAborted } from './errors.js';
import type { ActiveRequest } from './generation.js';
import { Holds } from './holds.js';
import { decodeRecords, type RecordSink } from './records.js';
import { onAbort } from './signals.js';
import type { TokenLogprob } from './request-types.js';

export type OpenedEvent = Extract<ControlEvent, { kind: 'opened' }>;
export type ProgressEvent = Extract<ControlEvent, { kind: 'progress' }>;

export class EngineHost implements RecordSink {
  /** Those that are prepared or that the engine has, by their number. */
  readonly requests = new Map<number, ActiveRequest>();
  readonly engine: NativeEngine;
  /** Set before the first adapter is registered. */
  adapters: AdapterRegistry | undefined;
  readonly holds: Holds;
  /** Told of what is no error. */
  onWarning: (warning: { code: string; message: string }) => void = () => undefined;

  readonly #opened = new Deferred<OpenedEvent>();
  readonly #closed = new Deferred<void>();
  #hasEnded = false;
  #failure: OpenLoraError | undefined;

  private constructor(
    addon: NativeAddon,
    options: OpenOptions,
    private readonly onProgress: (event: ProgressEvent) => void,
  ) {
    this.engine = addon.open(options, (records, events) => this.#onEvents(records, events));
    this.holds = new Holds(this.engine);
  }

  /** Rejects when everything is freed: with what the addon says, or with ERR_ABORTED. */
  static async open(
    addon: NativeAddon,
    options: OpenOptions,
    onProgress: (event: ProgressEvent) => void,
    signal: AbortSignal | undefined,
  ): Promise<{ host: EngineHost; opened: OpenedEvent }> {
    const host = new EngineHost(addon, options, onProgress);
    const unwatch = signal && onAbort(signal, () => void host.close());
    try {
      const opened = await host.#opened.promise;
      throwIfAborted('loadBase', signal);
      return { host, opened };
    } catch (error) {
      await host.close();
      throw signal?.aborted ? abortedError('loadBase', signal) : error;
    } finally {
      unwatch?.();
    }
  }

  /** Why the engine ended though nobody closed it: it does nothing any more. */
  get failure(): OpenLoraError | undefined {
    return this.#failure;
  }

  /** Resolves when the engine has freed everything. May be called again. */
  close(): Promise<void> {
    if (!this.#hasEnded) this.engine.close();
    return this.#closed.promise;
  }

  onToken(request: number, token: number, text: string, logprob: TokenLogprob | undefined): void {
    this.requests.get(request)?.addToken(token, text, logprob);
  }

  onPromptLogprob(request: number, logprob: TokenLogprob): void {
    this.requests.get(request)?.addPromptLogprob(logprob);
  }

  onText(request: number, text: string): void {
    this.requests.get(request)?.addText(text);
  }

  #onEvents(records: ArrayBuffer | null, events: ControlEvent[]): void {
    if (records !== null) {
      try {
        decodeRecords(records, this);
      } catch (error) {
        this.#onBroken(error as OpenLoraError);
      }
    }
    for (const event of events) this.#onEvent(event);
  }

  #onEvent(event: ControlEvent): void {
    switch (event.kind) {
      case 'progress':
        return this.onProgress(event);
      case 'opened':
        return this.#opened.resolve(event);
      case 'openFailed':
        return this.#opened.reject(new OpenLoraError(event.code, event.message));
      case 'adapterReady':
        return this.adapters?.onReady(event.handle, event.generation, event.bytes);
      case 'adapterFailed':
        return this.adapters?.onFailed(event.handle, new OpenLoraError(event.code, event.message));
      case 'adapterRetired':
        return this.adapters?.onRetired(event.handle);
      case 'adapterHeld':
        return this.holds.onHeld(
          event.ticket,
          event.code === '' ? undefined : new OpenLoraError(event.code, event.message),
        );
      case 'warning':
        return this.onWarning(event);
      case 'end':
        return this.requests.get(event.request)?.end(event);
      case 'failed':
        return this.requests.get(event.request)?.fail(new OpenLoraError(event.code, event.message));
      case 'closed':
        return this.#onClosed(event);
    }
  }

  #onClosed({ code, message }: Extract<ControlEvent, { kind: 'closed' }>): void {
    this.#hasEnded = true;
    if (code !== '') this.#failure = new OpenLoraError(code, message);
    for (const request of [...this.requests.values()]) request.fail(this.#failure ?? closedError('generate'));
    this.adapters?.close(this.#failure ?? closedError('registerAdapter'));
    this.holds.close(this.#failure ?? closedError('prefetch'));
    this.#opened.reject(closedError('loadBase'));
    this.#closed.resolve();
  }

  /** The addon and this code disagree: nothing that runs can be trusted to be whole. */
  #onBroken(error: OpenLoraError): void {
    for (const request of [...this.requests.values()]) {
      if (!request.isPreparing) this.engine.cancel(request.number);
      request.fail(error);
    }
  }
}
