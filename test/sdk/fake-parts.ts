// A base of bytes (token = character code) in place of files and worker, on the fake addon.

import { singleTemplate } from '../../src/formats/chat-template.js';
import { OpenLoraError } from '../../src/errors.js';
import type { AdapterParts, BaseDescription, CheckedAdapter, FolderReader } from '../../src/formats/index.js';
import type { ChatMessage, EncodeOptions, RenderChatOptions, Tokenizer } from '../../src/formats/tokenizer-types.js';
import { createLoadBase, type SdkParts } from '../../src/sdk/load-base.js';
import type { Base, LoadBaseOptions } from '../../src/sdk/types.js';
import { fakeAddon, type FakeEngine, type FakeOptions } from './fake-native.js';

export const VOCAB = 256;
export const CONTEXT = 512;

export function fakeFolder(changes: Partial<BaseDescription> = {}): BaseDescription {
  return {
    path: '/nowhere/base',
    family: 'llama',
    spec: {
      layers: 1,
      hidden: 8,
      heads: 2,
      kvHeads: 1,
      headDim: 4,
      intermediate: 16,
      vocab: VOCAB,
      context: CONTEXT,
      normEps: 1e-5,
      attentionScale: 0.5,
      embeddingScale: 1,
      attentionSoftCap: 0,
      residualScale: 1,
      logitScale: 1,
      logitSoftCap: 0,
      normOffset: 0,
      activation: 'silu',
      qkNorm: 'none',
      hasPreNorms: true,
      hasPostNorms: false,
      isFused: false,
      ropes: [{ invFreq: new Float32Array(2), longInvFreq: new Float32Array(0), factor: 1 }],
      ropeSwitch: 0,
      layerOptions: [{ window: 0, rope: 0 }],
      isTied: true,
    },
    files: ['/nowhere/base/model.safetensors'],
    tensors: new Float64Array(),
    sourceDtype: 'bf16',
    parameters: 1234,
    sites: [{ name: 'model.layers.0.self_attn.q_proj', site: 0, in: 8, out: 8 }],
    generation: {},
    warnings: [],
    eosTokens: [1],
    ...changes,
  };
}

export function fakeAdapter(path: string): CheckedAdapter {
  const none = new Float64Array();
  return {
    spec: {
      files: [path],
      headerDigests: [''],
      tensors: none,
      sites: none,
      baseTensors: none,
      baseTensorNames: [],
      canonicalConfig: new Uint8Array(),
    },
    info: {
      rank: { min: 2, max: 8 },
      sites: ['model.layers.0.self_attn.q_proj'],
      parameters: 64,
      bytes: 128,
      warnings: path.includes('warned') ? [{ code: 'ERR_TEST', message: 'another base' }] : [],
      ...(path.includes('template') ? { chat: singleTemplate('own') } : {}),
    },
  };
}

const pause = () => new Promise<void>((resolve) => setImmediate(resolve));

export class FakeTokenizer implements Tokenizer {
  readonly tokenBytes = Uint8Array.from({ length: VOCAB }, (_, i) => i);
  readonly tokenOffsets = Uint32Array.from({ length: VOCAB + 1 }, (_, i) => i);
  readonly vocabulary = VOCAB;
  readonly addedTokens = [];
  readonly bosToken = undefined;
  readonly eosToken = undefined;
  readonly hasChatTemplate = true;
  isDisposed = false;
  /** While true, encoding waits. */
  isHeld = false;
  /** Of every call, in turn. */
  readonly parseSpecialTokens: (boolean | undefined)[] = [];

  async encode(text: string, options: EncodeOptions = {}): Promise<Uint32Array> {
    this.parseSpecialTokens.push(options.parseSpecialTokens);
    do {
      await pause();
      if (this.isDisposed) throw new OpenLoraError('ERR_CLOSED', 'the tokenizer was disposed');
      if (options.signal?.aborted) throw new OpenLoraError('ERR_ABORTED', 'the signal was aborted');
    } while (this.isHeld);
    return Uint32Array.from(Buffer.from(text, 'latin1'));
  }

  async encodeChat(messages: readonly ChatMessage[], options: RenderChatOptions & EncodeOptions = {}) {
    const text = this.renderChat(messages, options);
    return { tokens: await this.encode(text, options), text };
  }

  renderChat(messages: readonly ChatMessage[], options: RenderChatOptions = {}): string {
    const lines = messages.map(({ role, content }) => `${role}:${JSON.stringify(content).replaceAll('"', '')}`);
    const tools = options.tools ? `<${options.tools.length}>` : '';
    const { template } = options;
    const name = typeof template === 'object' ? template.templates.default : template;
    return `[${name ?? 'base'}]${tools}${lines.join('|')}${options.addGenerationPrompt === false ? '' : '>'}`;
  }

  decode(ids: ArrayLike<number>): string {
    return Buffer.from(Array.from(ids)).toString('latin1');
  }

  async dispose(): Promise<void> {
    this.isDisposed = true;
  }
}

export class FakeReader implements FolderReader {
  isDisposed = false;
  /** Reading these folders waits. */
  readonly held = new Set<string>();

  constructor(readonly base: BaseDescription) {}

  async readAdapter(path: string, { signal }: { signal: AbortSignal }): Promise<CheckedAdapter> {
    do {
      await pause();
      signal.throwIfAborted();
    } while (this.held.has(path));
    if (path.includes('missing')) throw new OpenLoraError('ERR_ADAPTER_FILE', `${path}: no such folder`);
    return fakeAdapter(path);
  }

  async checkAdapter(
    { files, config, chat }: AdapterParts,
    { signal }: { signal: AbortSignal },
  ): Promise<CheckedAdapter> {
    await pause();
    signal.throwIfAborted();
    if (config.peft_type !== 'LORA') throw new OpenLoraError('ERR_ADAPTER_PEFT_TYPE', 'no LoRA');
    const { spec, info } = fakeAdapter(files[0]!);
    return { spec, info: { ...info, ...(chat === undefined ? {} : { chat }) } };
  }

  async dispose(): Promise<void> {
    this.isDisposed = true;
  }
}

export interface FakeSdk {
  loadBase(options?: Partial<LoadBaseOptions>): Promise<Base>;
  tokenizers: FakeTokenizer[];
  readers: FakeReader[];
  engines: FakeEngine[];
}

export function fakeSdk(options: FakeOptions = {}, changes: Partial<SdkParts> = {}, folder = fakeFolder()): FakeSdk {
  const addon = fakeAddon(options);
  const tokenizers: FakeTokenizer[] = [];
  const readers: FakeReader[] = [];
  const loadBase = createLoadBase({
    loadNative: () => ({ binding: addon, path: 'fake', variant: 'cpu', rejected: [] }),
    openFolderReader: async (_path, { signal }) => {
      await pause();
      signal?.throwIfAborted();
      const reader = new FakeReader(folder);
      readers.push(reader);
      return reader;
    },
    openTokenizer: async ({ signal }) => {
      await pause();
      signal?.throwIfAborted();
      const tokenizer = new FakeTokenizer();
      tokenizers.push(tokenizer);
      return tokenizer;
    },
    ...changes,
  });
  return {
    loadBase: (given = {}) => loadBase({ path: '/nowhere/base', ...given }),
    tokenizers,
    readers,
    engines: addon.engines,
  };
}

/** A loaded base beside what it stands on. */
export async function openFake(options: FakeOptions = {}, given: Partial<LoadBaseOptions> = {}, folder = fakeFolder()) {
  const sdk = fakeSdk(options, {}, folder);
  const base = await sdk.loadBase(given);
  return { base, engine: sdk.engines[0]!, tokenizer: sdk.tokenizers[0]!, reader: sdk.readers[0]! };
}

/** The code that a promise rejects with, or that a function throws with. */
export async function codeOf(action: Promise<unknown> | (() => unknown)): Promise<string> {
  try {
    await (typeof action === 'function' ? action() : action);
  } catch (error) {
    if (OpenLoraError.is(error)) return error.code;
    throw error;
  }
  return 'no error';
}

export async function turns(count: number): Promise<void> {
  for (let i = 0; i < count; i++) await pause();
}
