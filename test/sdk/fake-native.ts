// A scripted addon that keeps the contract of src/native/binding.ts: steps, order of events, pause, cancel, close, failures.

import type {
  AdapterSpec,
  ControlEvent,
  NativeAddon,
  NativeEngine,
  NativeFinishReason,
  NativeHold,
  NativeStats,
  NativeTier,
  OnEvents,
  OpenOptions,
  RequestSpec,
} from '../../src/native/binding.js';
import { encodeRecords, type TestRecord } from './encode-records.js';

export interface ScriptedToken {
  token: number;
  text: string;
  logprob?: number;
  top?: { token: number; logprob: number }[];
}

export interface ScriptedAnswer {
  tokens: ScriptedToken[];
  /** Text that the end releases. */
  tail?: string;
  /** Default: 'length' if the script is cut by maxTokens, else 'eos'. */
  finish?: NativeFinishReason;
  /** Fails in place of ending. */
  failure?: { code: string; message: string };
  promptLogprobs?: ScriptedToken[];
}

export interface FakeOptions {
  answer?: (request: RequestSpec) => ScriptedAnswer;
  openFailure?: { code: string; message: string };
  weightsFrom?: 'files' | 'cache';
  cacheWarning?: string;
  /** What `adapterFailed` says of an adapter, by its first file. */
  adapterFailure?: (adapter: AdapterSpec) => { code: string; message: string } | undefined;
  /** Default: the handle, as 64 hexadecimal digits. */
  generationOf?: (adapter: AdapterSpec) => string;
  /** Adapters, by their first file, that stay in their check while this says so. */
  isCheckHeld?: (adapter: AdapterSpec) => boolean;
  /** `adapterHeld` comes when the test calls `answerHolds()`; and what it says. */
  holdsWait?: boolean;
  holdFailure?: (kind: NativeHold) => { code: string; message: string } | undefined;
  /** Steps happen when the test calls `step()`, not by themselves. */
  isManual?: boolean;
  /** The addon's own words for a call that it can't read. */
  submitThrows?: Error;
}

interface FakeRequest {
  spec: RequestSpec;
  answer: ScriptedAnswer;
  at: number;
  isPaused: boolean;
  isCancelled: boolean;
}

interface FakeAdapter {
  spec: AdapterSpec;
  isReady: boolean;
  isUnregistered: boolean;
}

/** Echoes the prompt's tokens as their characters, again and again, up to maxTokens. */
export function echo(request: RequestSpec): ScriptedAnswer {
  const tokens = Array.from({ length: request.maxTokens }, (_, i) => {
    const token = request.tokens[i % request.tokens.length]!;
    return { token, text: String.fromCharCode(token) };
  });
  return { tokens };
}

export function generationOfHandle(handle: number): string {
  return handle.toString(16).padStart(64, '0');
}

export class FakeEngine implements NativeEngine {
  readonly calls: string[] = [];
  readonly submitted: RequestSpec[] = [];
  /** What a caller did that the contract doesn't allow. */
  readonly violations: string[] = [];
  readonly requests = new Map<number, FakeRequest>();
  readonly adapters = new Map<number, FakeAdapter>();
  readonly holds: { handle: number; ticket: number; kind: NativeHold }[] = [];
  isClosing = false;
  isClosed = false;
  #isScheduled = false;
  #phase: 'opening' | 'open' | 'failed' = 'opening';
  #progress = 0;
  #steps = 0;
  #tokensOut = 0;
  readonly #requestIds = new Set<number>();
  #handles = 0;

  constructor(
    readonly options: OpenOptions,
    private readonly onEvents: OnEvents,
    private readonly fake: FakeOptions,
  ) {
    this.#schedule();
  }

  registerAdapter(adapter: AdapterSpec): void {
    this.calls.push(`registerAdapter ${adapter.handle}`);
    if (this.isClosing) return;
    if (adapter.handle <= this.#handles) this.violations.push(`handle ${adapter.handle} used twice`);
    this.#handles = adapter.handle;
    this.adapters.set(adapter.handle, { spec: adapter, isReady: false, isUnregistered: false });
    this.#schedule();
  }

  unregisterAdapter(handle: number): void {
    this.calls.push(`unregisterAdapter ${handle}`);
    if (this.isClosing) return;
    const adapter = this.adapters.get(handle);
    if (adapter === undefined || adapter.isUnregistered) this.violations.push(`unregister of unknown handle ${handle}`);
    else adapter.isUnregistered = true;
    this.#schedule();
  }

  holdAdapter(handle: number, ticket: number, kind: NativeHold): void {
    this.calls.push(`holdAdapter ${handle} ${kind}`);
    if (this.isClosing) return;
    this.holds.push({ handle, ticket, kind });
    this.#schedule();
  }

  adapterTier(handle: number): NativeTier | undefined {
    const adapter = this.adapters.get(handle);
    return adapter && (adapter.isReady ? 'resident' : 'registered');
  }

  submit(request: RequestSpec): void {
    this.calls.push(`submit ${request.id}`);
    if (this.isClosing) return;
    if (this.fake.submitThrows) throw this.fake.submitThrows;
    if (this.#requestIds.has(request.id)) this.violations.push(`request ${request.id} used twice`);
    this.#requestIds.add(request.id);
    this.submitted.push(request);
    this.requests.set(request.id, {
      spec: request,
      answer: (this.fake.answer ?? echo)(request),
      at: 0,
      isPaused: false,
      isCancelled: false,
    });
    this.#schedule();
  }

  cancel(request: number): void {
    this.calls.push(`cancel ${request}`);
    const found = this.requests.get(request);
    if (found) found.isCancelled = true;
    this.#schedule();
  }

  pause(request: number, isPaused: boolean): void {
    this.calls.push(`pause ${request} ${isPaused}`);
    const found = this.requests.get(request);
    if (found) found.isPaused = isPaused;
    this.#schedule();
  }

  stats(): NativeStats {
    return {
      steps: this.#steps,
      tokensIn: 0,
      tokensOut: this.#tokensOut,
      rows: this.#steps * 2,
      weightBytesRead: 0,
      loraBytesRead: 0,
      loraOps: 0,
      pageTableReads: 0,
      requestsQueued: 0,
      requestsRunning: this.requests.size,
      preemptions: 0,
      prefixTokensLookedUp: 0,
      prefixTokensFound: 0,
      graphs: { captures: 0, replays: 0, captureMs: 0, bytes: 0 },
      adaptersResident: this.adapters.size,
      adaptersHost: 1,
      adapterLoads: this.adapters.size,
      adapterEvictions: 0,
      adapterPacks: 2,
      adapterBytesRead: 3,
      adapterHits: { registered: 4, host: 5, loading: 6, resident: 8 },
      bytes: {
        base: 1000,
        kv: 0,
        prefix: 0,
        adapters: 7,
        hostAdapters: 9,
        pinnedAdapters: 10,
        workspace: 0,
        poolFree: 0,
        pool: 0,
      },
    };
  }

  close(): void {
    this.calls.push('close');
    if (this.isClosing) return;
    this.isClosing = true;
    setImmediate(() => this.#finishClose());
  }

  /** One step: a token for each request that is not paused, and everything else that is due. */
  step(): void {
    if (this.isClosing) return;
    const records: TestRecord[] = [];
    const events: ControlEvent[] = [];
    if (this.#phase === 'opening') this.#stepOpening(events);
    else this.#stepOpen(records, events);
    this.#steps++;
    if (records.length > 0 || events.length > 0)
      this.onEvents(records.length > 0 ? encodeRecords(records) : null, events);
  }

  #stepOpening(events: ControlEvent[]): void {
    const phase = this.#progress < 2 ? 'weights' : 'pack';
    if (this.#progress < 4) {
      events.push({ kind: 'progress', phase, bytesDone: this.#progress % 2 === 0 ? 500 : 1000, bytesTotal: 1000 });
      this.#progress++;
      return;
    }
    if (this.fake.openFailure) {
      this.#phase = 'failed';
      events.push({ kind: 'openFailed', ...this.fake.openFailure });
      return;
    }
    this.#phase = 'open';
    const { limits } = this.options;
    events.push({
      kind: 'opened',
      digest: 'd'.repeat(64),
      simd: 'scalar',
      threads: 1,
      weightBytes: 1000,
      poolBytes: limits.poolBytes,
      maxContext: limits.maxContext || this.options.model.context,
      frameBytes: 64,
      weightsFrom: this.fake.weightsFrom ?? 'files',
      cacheWarning: this.fake.cacheWarning ?? '',
    });
  }

  #stepOpen(records: TestRecord[], events: ControlEvent[]): void {
    for (const request of [...this.requests.values()]) this.#stepRequest(request, records, events);
    for (const [handle, adapter] of this.adapters) this.#stepAdapter(handle, adapter, events);
    if (!this.fake.holdsWait) this.#stepHolds(events);
  }

  answerHolds(): void {
    const events: ControlEvent[] = [];
    this.#stepHolds(events);
    this.onEvents(null, events);
  }

  #stepHolds(events: ControlEvent[]): void {
    for (const { handle, ticket, kind } of this.holds.splice(0)) {
      const isGone = !this.adapters.has(handle);
      const gone = { code: 'ERR_ADAPTER_NOT_FOUND', message: `adapter ${handle} is not registered` };
      const failure = isGone ? gone : (this.fake.holdFailure?.(kind) ?? { code: '', message: '' });
      if (!isGone && !this.adapters.get(handle)?.isReady)
        this.violations.push(`hold of handle ${handle}, which is not ready`);
      events.push({ kind: 'adapterHeld', ticket, ...failure });
    }
  }

  #stepAdapter(handle: number, adapter: FakeAdapter, events: ControlEvent[]): void {
    // A check that has begun is finished, also of what was unregistered meanwhile.
    if (!adapter.isReady) {
      if (this.fake.isCheckHeld?.(adapter.spec)) return;
      const failure = this.fake.adapterFailure?.(adapter.spec);
      if (failure) {
        this.adapters.delete(handle);
        events.push({ kind: 'adapterFailed', handle, ...failure });
        return;
      }
      adapter.isReady = true;
      const generation = this.fake.generationOf?.(adapter.spec) ?? generationOfHandle(handle);
      events.push({ kind: 'adapterReady', handle, generation, bytes: 100 });
    }
    const isNamed = [...this.requests.values()].some(({ spec }) =>
      spec.adapters.some((used) => used.handle === handle),
    );
    if (!adapter.isUnregistered || isNamed) return;
    this.adapters.delete(handle);
    events.push({ kind: 'adapterRetired', handle });
  }

  #stepRequest(request: FakeRequest, records: TestRecord[], events: ControlEvent[]): void {
    const { spec, answer } = request;
    const unknown = spec.adapters.find(({ handle }) => !this.adapters.get(handle)?.isReady);
    if (unknown && request.at === 0) {
      this.violations.push(`request ${spec.id} names handle ${unknown.handle}, which is not ready`);
      return this.#fail(request, { code: 'ERR_ADAPTER_NOT_FOUND', message: `handle ${unknown.handle}` }, events);
    }
    if (request.isCancelled) return this.#end(request, 'cancelled', events);
    if (request.isPaused) return;
    if (request.at === 0 && spec.promptLogprobs >= 0) {
      for (const entry of answer.promptLogprobs ?? []) records.push({ request: spec.id, kind: 1, ...entry });
    }
    const next = answer.tokens[request.at];
    if (next && request.at < spec.maxTokens) {
      const { token, text } = next;
      const logprob = spec.logprobs >= 0 ? { logprob: next.logprob ?? 0, top: next.top ?? [] } : {};
      records.push({ request: spec.id, kind: 0, token, text, ...logprob });
      request.at++;
      this.#tokensOut++;
    }
    if (request.at < Math.min(answer.tokens.length, spec.maxTokens)) return;
    if (answer.failure) return this.#fail(request, answer.failure, events);
    if (answer.tail) records.push({ request: spec.id, kind: 2, token: 0, text: answer.tail });
    this.#end(request, answer.finish ?? (request.at >= spec.maxTokens ? 'length' : 'eos'), events);
  }

  #end({ spec, at }: FakeRequest, finishReason: NativeFinishReason, events: ControlEvent[]): void {
    this.requests.delete(spec.id);
    events.push({
      kind: 'end',
      request: spec.id,
      finishReason,
      input: spec.tokens.length,
      output: at,
      cachedInput: 0,
      queuedMs: 1,
      adapterLoadMs: 2,
      ttftMs: 3,
      tpotMs: 4,
      adapters: spec.adapters.map(({ handle }) => ({ handle, tier: 'resident' })),
    });
  }

  #fail({ spec }: FakeRequest, failure: { code: string; message: string }, events: ControlEvent[]): void {
    this.requests.delete(spec.id);
    events.push({ kind: 'failed', request: spec.id, ...failure });
  }

  #finishClose(): void {
    this.isClosed = true;
    const events: ControlEvent[] = [];
    for (const request of [...this.requests.values()]) {
      this.#fail(request, { code: 'ERR_CLOSED', message: 'the engine is closed' }, events);
    }
    this.adapters.clear();
    this.onEvents(null, [...events, { kind: 'closed', code: '', message: '' }]);
  }

  warn(code: string, message: string): void {
    this.onEvents(null, [{ kind: 'warning', code, message }]);
  }

  /** Ends by itself, as the addon does when memory runs out in a step; what it had is dropped without a word. */
  crash(code: string, message: string): void {
    this.isClosed = true;
    this.holds.length = 0;
    this.requests.clear();
    this.adapters.clear();
    this.onEvents(null, [{ kind: 'closed', code, message }]);
  }

  #schedule(): void {
    if (this.fake.isManual || this.#isScheduled || this.isClosing) return;
    this.#isScheduled = true;
    setImmediate(() => {
      this.#isScheduled = false;
      this.step();
      const isBusy = [...this.requests.values()].some((request) => !request.isPaused || request.isCancelled);
      const isWaiting =
        [...this.adapters.values()].some((adapter) => !adapter.isReady) ||
        (this.holds.length > 0 && !this.fake.holdsWait);
      if (this.#phase === 'opening' || isBusy || isWaiting) this.#schedule();
    });
  }
}

export interface FakeAddon extends NativeAddon {
  readonly engines: FakeEngine[];
}

export function fakeAddon(options: FakeOptions = {}): FakeAddon {
  const engines: FakeEngine[] = [];
  return {
    version: '0.0.0',
    engines,
    probe: () => ({ isUsable: true, reason: '', cpuFeatures: [], simdLevels: ['scalar'] }),
    bench: () => () => undefined,
    forgetPages: () => false,
    open(openOptions, onEvents) {
      const engine = new FakeEngine(openOptions, onEvents, options);
      engines.push(engine);
      return engine;
    },
  };
}
