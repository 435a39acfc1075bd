// A base that is loaded: the public calls, and the order in which things happen in them.

import { setImmediate as nextTurn } from 'node:timers/promises';
import { OpenLoraError } from '../errors.js';
import type { CheckedAdapter, FolderReader } from '../formats/index.js';
import { singleTemplate } from '../formats/chat-template.js';
import type { RenderChatOptions, Tokenizer } from '../formats/tokenizer-types.js';
import { Admission } from './admission.js';
import { AdapterRegistry, type AdapterEntry } from './adapter.js';
import { adapterBytesMax, checkAdapterSource, type AdapterSource } from './adapter-source.js';
import { abortedError, callUser, closedError, throwIfAborted, toOpenLoraError } from './errors.js';
import type { EngineHost } from './engine-host.js';
import type { NativeHold, NativeLimits } from '../native/binding.js';
import { ActiveRequest, type RequestControl } from './generation.js';
import { checkRegisterOptions, type CheckedResolverLimits } from './load-options.js';
import type { CheckedRequest, RequestRules } from './request-options.js';
import { checkMessages, checkRequest, checkTools, resolveMaxTokens, textLengthMax } from './request-options.js';
import type { ChatMessage, GenerateRequest, Generation, Tool } from './request-types.js';
import { keepAlive } from './keep-alive.js';
import { drawName } from './random.js';
import { Resolutions } from './resolutions.js';
import { linkSignals, whenAborted } from './signals.js';
import type { PackFolder } from './pack-folder.js';
import { Spool } from './spool.js';
import { adapterStats, engineStats } from './stats.js';
import type {
  AdapterFiles,
  AdapterInfo,
  AdapterResolver,
  Base,
  BaseAdapters,
  BaseInfo,
  BaseTokenizer,
  EngineStats,
  Logger,
  RegisterOptions,
} from './types.js';
import { checkBoolean, checkKeys, checkName, checkObject, checkText } from './validate.js';

/** Characters that `tokenizer.encode` takes, if the context is not longer still: the tokenizer's one thread is everyone's. */
const ENCODE_LENGTH_MAX = 2 ** 22;

/** What `loadBase` has made. */
export interface BaseParts {
  host: EngineHost;
  tokenizer: Tokenizer;
  reader: FolderReader;
  packs: PackFolder;
  info: BaseInfo;
  rules: RequestRules;
  adapterDtype: string;
  limits: Pick<NativeLimits, 'maxQueued' | 'maxQueuedPerTenant'>;
  strictBase: boolean;
  logger: Logger;
  resolver: AdapterResolver | undefined;
  resolverLimits: CheckedResolverLimits;
}

export class BaseModel implements Base {
  readonly info: BaseInfo;
  readonly tokenizer: BaseTokenizer;
  readonly adapters: BaseAdapters;

  readonly #parts: BaseParts;
  readonly #registry: AdapterRegistry;
  /** Of a base that has a resolver. */
  readonly #resolutions: Resolutions | undefined;
  readonly #closing = new AbortController();
  readonly #spool = new Spool();
  readonly #control: RequestControl;
  readonly #admission: Admission;
  /** Begins the ids of its generations. */
  readonly #name = drawName();
  #requests = 0;
  #disposal: Promise<void> | undefined;

  constructor(parts: BaseParts) {
    const { host } = parts;
    this.#parts = parts;
    this.#admission = new Admission(host.requests, parts.limits);
    this.#registry = new AdapterRegistry({
      engine: host.engine,
      dtype: parts.adapterDtype,
      sites: parts.reader.base.sites,
      removeSpooled: (spooled) => this.#spool.remove(spooled),
    });
    host.adapters = this.#registry;
    const { resolver, resolverLimits } = parts;
    this.#resolutions =
      resolver &&
      new Resolutions({
        resolver,
        limits: resolverLimits,
        registry: this.#registry,
        register: (id, tenant, source, signal) => this.#registerResolved(id, tenant, source, signal),
      });
    this.#control = {
      cancel: (request) => host.engine.cancel(request),
      pause: (request, isPaused) => host.engine.pause(request, isPaused),
      release: (request) => this.#admission.release(request),
    };
    this.info = parts.info;
    this.tokenizer = Object.freeze({
      encode: (text, options) => this.#encode(text, options),
      decode: (ids, options) => this.#decode(ids, options),
    } satisfies BaseTokenizer);
    this.adapters = Object.freeze({
      get: (id, options) => this.#getAdapter(id, options),
      list: () => this.#listAdapters(),
      stats: () => this.#adapterStats(),
    } satisfies BaseAdapters);
  }

  generate(request: GenerateRequest): Generation {
    const number = ++this.#requests;
    const active = new ActiveRequest(`${this.#name}-${number}`, number, this.#control, (reason) => {
      callUser(() => this.#parts.logger.debug?.('request cancelled', { id: active.id, reason }));
    });
    try {
      this.#start(active, request);
    } catch (error) {
      active.fail(toOpenLoraError(error));
    }
    return active.generation;
  }

  #start(active: ActiveRequest, given: GenerateRequest): void {
    this.#assertOpen('generate');
    const request = checkRequest(given, this.#parts.rules);
    throwIfAborted('generate', request.signal);
    const { adapter, tenant } = request;
    this.#admission.check(tenant);
    const entry = adapter === undefined ? undefined : this.#find(adapter, tenant);
    this.#setFacts(active, request, entry);
    this.#admission.add(active, tenant);
    if (request.signal !== undefined) active.watch(request.signal);
    const isComplete = request.prompt.kind === 'tokens' && (entry !== undefined || adapter === undefined);
    if (isComplete) this.#submit(active, request, entry, (request.prompt as { tokens: Uint32Array }).tokens, 0);
    else void this.#prepare(active, request, entry);
  }

  #setFacts(active: ActiveRequest, { sampling }: CheckedRequest, entry: AdapterEntry | undefined): void {
    const adapters = entry === undefined ? [] : [{ ...pick(entry), weight: 1 }];
    const { seed, logprobs, promptLogprobs } = sampling;
    active.setFacts({ seed, adapters, hasLogprobs: logprobs >= 0, hasPromptLogprobs: promptLogprobs >= 0 });
  }

  /** undefined: the resolver has to be asked. Throws ERR_ADAPTER_NOT_FOUND where there is none. */
  #find(adapter: string, tenant: string | undefined): AdapterEntry | undefined {
    if (this.#resolutions === undefined) return this.#registry.find(adapter, tenant);
    const entry = this.#registry.get(adapter, tenant);
    if (entry !== undefined) this.#resolutions.touch(entry);
    return entry;
  }

  /** Has its adapter resolved where `found` is missing, encodes and submits; never rejects. */
  async #prepare(active: ActiveRequest, request: CheckedRequest, found: AdapterEntry | undefined): Promise<void> {
    const startedAt = performance.now();
    let entry = found;
    if (entry) this.#registry.beginRequest(entry);
    const { deadlineMs } = request.sampling;
    const timer = deadlineMs === 0 ? undefined : setTimeout(() => active.fail(lateError(deadlineMs)), deadlineMs);
    const { signal } = active.preparation;
    try {
      if (request.adapter !== undefined && entry === undefined) {
        entry = await this.#resolutions!.wait(request.adapter, request.tenant, signal);
        this.#setFacts(active, request, entry);
      }
      const tokens = await this.#encodePrompt(request, entry, signal);
      if (active.isPreparing) this.#submit(active, request, entry, tokens, performance.now() - startedAt);
    } catch (error) {
      active.fail(toOpenLoraError(error));
    } finally {
      clearTimeout(timer);
      if (entry) this.#registry.endRequest(entry);
    }
  }

  async #encodePrompt(
    { prompt }: CheckedRequest,
    entry: AdapterEntry | undefined,
    signal: AbortSignal,
  ): Promise<Uint32Array> {
    const { tokenizer } = this.#parts;
    if (prompt.kind === 'tokens') return prompt.tokens;
    const { parseSpecialTokens } = prompt;
    if (prompt.kind === 'text') {
      return tokenizer.encode(prompt.text, { addSpecialTokens: 'once', parseSpecialTokens, signal });
    }
    const chat = await tokenizer.encodeChat(prompt.messages, {
      ...templateOf(entry),
      ...(prompt.tools === undefined ? {} : { tools: prompt.tools }),
      parseSpecialTokens,
      signal,
    });
    return chat.tokens;
  }

  #submit(
    active: ActiveRequest,
    request: CheckedRequest,
    entry: AdapterEntry | undefined,
    tokens: Uint32Array,
    elapsedMs: number,
  ): void {
    const { sampling } = request;
    if (sampling.deadlineMs > 0 && elapsedMs >= sampling.deadlineMs) {
      throw lateError(sampling.deadlineMs);
    }
    this.#parts.host.engine.submit({
      id: active.number,
      tokens,
      adapters: entry === undefined ? [] : [{ handle: entry.handle, weight: 1 }],
      maxTokens: resolveMaxTokens(tokens.length, request, this.#parts.rules.contextLength),
      ...sampling,
      deadlineMs: sampling.deadlineMs === 0 ? 0 : Math.ceil(sampling.deadlineMs - elapsedMs),
    });
    active.markSubmitted();
  }

  async registerAdapter(id: string, source: string | AdapterFiles, options?: RegisterOptions): Promise<AdapterInfo> {
    this.#assertOpen('registerAdapter');
    checkName('id', id);
    const checked = checkAdapterSource(source);
    const { hold, tenant, expectedGeneration, signal } = checkRegisterOptions(options);
    throwIfAborted('registerAdapter', signal);
    const registration = this.#registry.begin(id, tenant);
    const link = linkSignals(this.#closing.signal, signal, registration.superseded.signal);
    try {
      const { spec, info, spooled } = await this.#readAdapter(checked, link.signal);
      try {
        link.signal.throwIfAborted();
        this.#assertOpen('registerAdapter');
        const entry = this.#registry.add(id, tenant, info, { spooled });
        registration.entry = entry;
        await this.#check(entry, spec, hold, link.signal);
        return this.#registry.info(this.#publish(entry, registration, expectedGeneration, hold !== undefined));
      } catch (error) {
        await this.#spool.remove(spooled);
        throw error;
      }
    } catch (error) {
      if (this.#closing.signal.aborted) throw closedError('registerAdapter');
      if (signal?.aborted) throw abortedError('registerAdapter', signal);
      throw toOpenLoraError(registration.superseded.signal.reason ?? error);
    } finally {
      link.unlink();
      this.#registry.end(registration);
    }
  }

  /** The adapter as the engine gets it. What was given in memory is in file `spooled` then, which goes when this rejects. */
  async #readAdapter(source: AdapterSource, signal: AbortSignal): Promise<CheckedAdapter & { spooled: number }> {
    const { reader, strictBase, tokenizer } = this.#parts;
    if (typeof source === 'string') {
      const read = await reader.readAdapter(source, { strictBase, vocabulary: tokenizer.vocabulary, signal });
      signal.throwIfAborted();
      return { ...read, spooled: 0 };
    }
    const { config, tensors, chatTemplate } = source;
    const spooled = await this.#spool.write(tensors, adapterBytesMax(reader.base), signal);
    try {
      const parts = {
        config,
        files: [spooled.path],
        ...(chatTemplate === undefined ? {} : { chat: singleTemplate(chatTemplate) }),
      };
      const read = await reader.checkAdapter(parts, { strictBase, signal });
      signal.throwIfAborted();
      return { ...read, spooled: spooled.number };
    } catch (error) {
      await this.#spool.remove(spooled.number);
      throw error;
    }
  }

  /** Has the engine hash and check it, and bring it where `hold` wants it. */
  async #check(
    entry: AdapterEntry,
    spec: CheckedAdapter['spec'],
    hold: NativeHold | undefined,
    signal: AbortSignal,
  ): Promise<void> {
    const ready = this.#registry.whenReady(entry);
    const abort = whenAborted(signal);
    try {
      this.#tellEngine(entry, spec);
      await Promise.race([ready, abort.promise]);
      if (hold !== undefined) await Promise.race([this.#parts.host.holds.hold(entry.handle, hold), abort.promise]);
    } catch (error) {
      this.#registry.hide(entry);
      throw error;
    } finally {
      abort.stop();
    }
  }

  #publish(...given: Parameters<AdapterRegistry['publish']>): AdapterEntry {
    const [entry] = given;
    try {
      const published = this.#registry.publish(...given);
      this.#warnOf(entry);
      return published;
    } catch (error) {
      this.#registry.hide(entry);
      throw error;
    }
  }

  #warnOf({ id, warnings }: AdapterEntry): void {
    const { logger } = this.#parts;
    for (const { code, message } of warnings?.value ?? []) {
      callUser(() => logger.warn?.(message, { adapter: id, code }));
    }
  }

  async #registerResolved(
    id: string,
    tenant: string | undefined,
    source: AdapterSource,
    signal: AbortSignal,
  ): Promise<void> {
    const { spec, info, spooled } = await this.#readAdapter(source, signal);
    try {
      signal.throwIfAborted();
      const entry = this.#registry.add(id, tenant, info, { spooled, isResolved: true });
      await this.#check(entry, spec, undefined, signal);
      if (signal.aborted) this.#registry.hide(entry);
      signal.throwIfAborted();
      this.#registry.publishResolved(entry);
      this.#warnOf(entry);
    } catch (error) {
      await this.#spool.remove(spooled);
      throw error;
    }
  }

  #tellEngine(entry: AdapterEntry, spec: CheckedAdapter['spec']): void {
    try {
      this.#parts.host.engine.registerAdapter({ ...spec, handle: entry.handle });
    } catch (error) {
      this.#registry.onFailed(entry.handle, toOpenLoraError(error));
      throw error;
    }
  }

  async unregisterAdapter(id: string, options: { drain?: boolean; tenant?: string } = {}): Promise<void> {
    this.#assertOpen('unregisterAdapter');
    checkName('id', id);
    checkKeys('unregisterAdapter', checkObject('unregisterAdapter', options), { drain: 0, tenant: 0 });
    const drain = options.drain === undefined || checkBoolean('drain', options.drain);
    const freed = this.#registry.unregister(id, optionalName('tenant', options.tenant));
    if (drain) await keepAlive(freed);
  }

  async prefetch(id: string, options: { tenant?: string } = {}): Promise<void> {
    this.#assertOpen('prefetch');
    checkName('id', id);
    checkKeys('prefetch', checkObject('prefetch', options), { tenant: 0 });
    const tenant = optionalName('tenant', options.tenant);
    for (;;) {
      const entry = this.#registry.find(id, tenant);
      const failure = await this.#parts.host.holds.hold(entry.handle, 'host').then(
        () => undefined,
        (error: unknown) => error,
      );
      if (this.#registry.get(id, tenant) === entry) {
        if (failure !== undefined) throw toOpenLoraError(failure);
        return;
      }
      // The name means another meanwhile, or nothing.
      this.#assertOpen('prefetch');
    }
  }

  renderChat(
    messages: readonly ChatMessage[],
    options: { tools?: readonly Tool[]; addGenerationPrompt?: boolean; adapter?: string; tenant?: string } = {},
  ): string {
    this.#assertOpen('renderChat');
    const known = { tools: 0, addGenerationPrompt: 0, adapter: 0, tenant: 0 };
    checkKeys('renderChat', checkObject('renderChat', options), known);
    const { tools, addGenerationPrompt } = options;
    const adapter = optionalName('adapter', options.adapter);
    const tenant = optionalName('tenant', options.tenant);
    return this.#parts.tokenizer.renderChat(checkMessages(messages), {
      ...templateOf(adapter === undefined ? undefined : this.#registry.find(adapter, tenant)),
      ...(tools === undefined ? {} : { tools: checkTools(tools) }),
      ...(addGenerationPrompt === undefined
        ? {}
        : { addGenerationPrompt: checkBoolean('addGenerationPrompt', addGenerationPrompt) }),
    });
  }

  stats(): EngineStats {
    this.#assertOpen('stats');
    return engineStats(this.#parts.host.engine.stats(), this.#registry.count);
  }

  async drain(): Promise<void> {
    this.#assertOpen('drain');
    await Promise.all([...this.#parts.host.requests.values()].map((request) => request.over.promise));
  }

  dispose(): Promise<void> {
    this.#disposal ??= this.#dispose();
    return this.#disposal;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }

  async #dispose(): Promise<void> {
    const { host, tokenizer, reader } = this.#parts;
    this.#closing.abort();
    this.#resolutions?.dispose();
    for (const request of [...host.requests.values()]) if (request.isPreparing) request.fail(closedError('generate'));
    await host.close();
    // Ending a thread takes its owner half a millisecond: a turn for each.
    for (const part of [tokenizer, reader]) {
      await nextTurn();
      await part.dispose();
    }
    await this.#spool.dispose();
    await this.#parts.packs.remove();
  }

  async #encode(
    text: string,
    options: { addSpecialTokens?: boolean; parseSpecialTokens?: boolean } = {},
  ): Promise<Uint32Array> {
    this.#assertOpen('tokenizer.encode');
    checkText('text', text, 0, Math.max(ENCODE_LENGTH_MAX, textLengthMax(this.info.contextLength)));
    const known = { addSpecialTokens: 0, parseSpecialTokens: 0 };
    checkKeys('tokenizer.encode', checkObject('tokenizer.encode', options), known);
    for (const key of ['addSpecialTokens', 'parseSpecialTokens'] as const) {
      if (options[key] !== undefined) checkBoolean(key, options[key]);
    }
    return this.#parts.tokenizer.encode(text, options);
  }

  #decode(ids: ArrayLike<number>, options: { skipSpecialTokens?: boolean } = {}): string {
    this.#assertOpen('tokenizer.decode');
    checkKeys('tokenizer.decode', checkObject('tokenizer.decode', options), { skipSpecialTokens: 0 });
    const { skipSpecialTokens } = options;
    if (skipSpecialTokens !== undefined) checkBoolean('skipSpecialTokens', skipSpecialTokens);
    return this.#parts.tokenizer.decode(ids, options);
  }

  #getAdapter(id: string, options: { tenant?: string } = {}): AdapterInfo | undefined {
    this.#assertOpen('adapters.get');
    checkKeys('adapters.get', checkObject('adapters.get', options), { tenant: 0 });
    const entry = this.#registry.get(checkName('id', id), optionalName('tenant', options.tenant));
    return entry && this.#registry.info(entry);
  }

  #listAdapters(): Iterable<AdapterInfo> {
    this.#assertOpen('adapters.list');
    return this.#registry.list();
  }

  #adapterStats() {
    this.#assertOpen('adapters.stats');
    return adapterStats(this.#parts.host.engine.stats(), this.#registry.count);
  }

  #assertOpen(what: string): void {
    if (this.#disposal !== undefined) throw closedError(what);
    if (this.#parts.host.failure !== undefined) throw this.#parts.host.failure;
  }
}

function pick({ id, generation, handle }: AdapterEntry): { id: string; generation: string; handle: number } {
  return { id, generation, handle };
}

function lateError(deadlineMs: number): OpenLoraError {
  return new OpenLoraError('ERR_DEADLINE', `deadlineMs ${deadlineMs} passed before the request reached the engine`);
}

function optionalName(what: string, value: string | undefined): string | undefined {
  return value === undefined ? undefined : checkName(what, value);
}

/** An adapter's own chat templates are used for its requests. */
function templateOf(entry: AdapterEntry | undefined): Pick<RenderChatOptions, 'template'> {
  const template = entry?.chat?.value;
  return template === undefined ? {} : { template };
}
