// A base that answers by rule, for tests of what the CLI makes of answers: `upper` upper-cases, the base alone echoes.

import type { Base, Chunk, GenerateRequest, Generation, Result } from '../../src/index.js';
import { OpenLoraError } from '../../src/errors.js';

export interface FakeBaseOptions {
  hasChatTemplate?: boolean;
  /** Between chunks. */
  chunkMs?: number;
}

export class FakeBase {
  readonly requests: GenerateRequest[] = [];
  readonly info = {
    family: 'fake',
    parameters: 1,
    dtype: 'f32',
    kvDtype: 'f32',
    device: 'cpu',
    contextLength: 64,
    vocabSize: 4,
    sites: [],
    digest: '',
    weightsFrom: 'files',
    warnings: [] as { code: string; message: string }[],
  };
  isDisposed = false;
  readonly #ids: string[] = [];
  readonly adapters = { list: () => this.#ids.map((id) => ({ id })) };

  constructor(readonly options: FakeBaseOptions = {}) {}

  renderChat(): string {
    if (this.options.hasChatTemplate) return 'prompt';
    throw new OpenLoraError('ERR_CHAT_TEMPLATE_MISSING', 'no chat template');
  }

  async registerAdapter(id: string): Promise<{ warnings: { code: string; message: string }[] }> {
    this.#ids.push(id);
    return { warnings: id === 'odd' ? [{ code: 'WARN_ODD', message: 'this one is odd' }] : [] };
  }

  /** Each character is a token; a conversation that is longer than the context is refused by the iterator. */
  generate(request: GenerateRequest): Generation {
    this.requests.push(request);
    const prompt =
      'prompt' in request ? request.prompt : 'messages' in request ? (request.messages.at(-1)!.content as string) : '';
    const answer =
      request.adapter === undefined
        ? prompt
        : request.adapter === 'upper'
          ? prompt.toUpperCase()
          : `${request.adapter as string}: ${prompt}`;
    const id = typeof request.adapter === 'string' ? request.adapter : undefined;
    const length =
      'messages' in request ? request.messages.reduce((sum, { content }) => sum + (content as string).length, 0) : 0;
    if (length > this.info.contextLength) return refused(`the prompt has ${length} tokens`);
    return fakeGeneration([...answer], this.options.chunkMs ?? 0, id, this.info.contextLength) as Generation;
  }

  /** From now on every answer is empty. */
  generateNothing(): void {
    this.generate = () => fakeGeneration([], 0, undefined, this.info.contextLength) as Generation;
  }

  async dispose(): Promise<void> {
    this.isDisposed = true;
  }

  asBase(): Base {
    return this as unknown as Base;
  }
}

function refused(message: string): Generation {
  const error = new OpenLoraError('ERR_CONTEXT_LENGTH', message);
  const result = Promise.reject(error);
  result.catch(() => undefined);
  return {
    result,
    cancel: () => undefined,
    [Symbol.asyncIterator]: () => ({ next: () => Promise.reject(error) }),
  } as unknown as Generation;
}

function fakeGeneration(
  chars: string[],
  chunkMs: number,
  id: string | undefined,
  contextLength: number,
): Partial<Generation> {
  let isCancelled = false;
  let text = '';
  let settle: (result: Result) => void = () => undefined;
  const result = new Promise<Result>((resolve) => (settle = resolve));
  async function* chunks(): AsyncGenerator<Chunk> {
    for (const char of chars) {
      await new Promise((resolve) => setTimeout(resolve, chunkMs));
      if (isCancelled) break;
      text += char;
      yield { text: char, tokens: [1] };
    }
    settle({
      text,
      tokens: chars.map(() => 1),
      finishReason: isCancelled ? 'cancelled' : chars.length + 1 >= contextLength ? 'length' : 'eos',
      seed: 7,
      usage: { input: 1, output: chars.length, cachedInput: 0 },
      timing: { queuedMs: 0, adapterLoadMs: 0, ttftMs: 1, tpotMs: 1 },
      adapters: id === undefined ? [] : [{ id, generation: `generation-of-${id}`, tier: 'resident', weight: 1 }],
    });
  }
  const iterator = chunks();
  return {
    id: '1',
    get result() {
      void (async () => {
        for await (const _ of iterator);
      })();
      return result;
    },
    cancel: () => (isCancelled = true),
    [Symbol.asyncIterator]: () => iterator,
  };
}
