// `openlora generate`: one prompt, the base or one adapter as a plain stream, or several adapters at once, labelled.

import { text as readAll } from 'node:stream/consumers';
import type { Base, GenerateRequest, Generation, Result } from '../index.js';
import {
  BASE_OPTIONS,
  SAMPLING_OPTIONS,
  openBase,
  parseAdapters,
  registerAll,
  requireFolder,
  samplingOf,
} from './base-options.js';
import { defineCommand } from './command.js';
import { Interrupted, UsageError } from './errors.js';
import { json, type Io } from './io.js';
import { LabelledOutput } from './labelled.js';
import { printable } from './text.js';

export const BASE_ALONE = 'base';

export const generate = defineCommand({
  name: 'generate',
  summary: 'continue a prompt, with one adapter or several at once',
  usage: '--base DIR --prompt TEXT [options]',
  details:
    'The answer is streamed to stdout. With several --adapter the same prompt runs with each of them in one batch, and each answer carries its label.',
  surplusHint: '--prompt TEXT, in quotes',
  options: {
    ...BASE_OPTIONS,
    prompt: { kind: 'text', value: 'TEXT', short: 'p', summary: "to continue; '-' reads it from stdin" },
    chat: { kind: 'flag', summary: "take the prompt as a user's message, through the base's chat template" },
    'with-base': { kind: 'flag', summary: 'answer by the base alone, too' },
    ...SAMPLING_OPTIONS,
    logprobs: {
      kind: 'integer',
      value: 'N',
      min: 0,
      max: 20,
      summary: "with --json: each token's log-probability, and the N likeliest",
    },
  },
  examples: [
    'openlora generate --base ./llama --prompt "Once upon a time" --max-tokens 64',
    'openlora generate --base ./llama --adapter ./tenant-a --adapter b=./tenant-b --prompt "Dear" --json',
  ],
  async run({ options, io }) {
    if (options.prompt === undefined) throw new UsageError('--prompt is missing');
    if (options.logprobs !== undefined && !options.json)
      throw new UsageError('--logprobs is printed with --json only', 'add --json');
    const folder = requireFolder('--base', options.base);
    const adapters = parseAdapters(options.adapter);
    const prompt = options.prompt === '-' ? await readAll(io.stdin) : options.prompt;
    const base = await openBase(folder, options, io);
    try {
      await registerAll(base, folder, adapters, io);
      const ids: (string | undefined)[] = adapters.map(({ id }) => id);
      if (options['with-base'] || ids.length === 0) ids.unshift(undefined);
      const input = options.chat ? { messages: [{ role: 'user', content: prompt }] } : { prompt };
      const requests = ids.map((adapter): GenerateRequest => ({
        ...input,
        ...samplingOf(options),
        ...(adapter === undefined ? {} : { adapter }),
        ...(options.logprobs === undefined ? {} : { logprobs: options.logprobs }),
      }));
      if (options.json) await answerJson(base, requests, io);
      else if (requests.length === 1) await answerPlain(base, requests[0]!, io);
      else await answerLabelled(base, requests, io);
      return 0;
    } finally {
      await base.dispose();
    }
  },
});

function labelOf(request: GenerateRequest): string {
  return typeof request.adapter === 'string' ? request.adapter : BASE_ALONE;
}

/** Starts every request in one go, so that they share batches; interruption cancels them all. */
function startAll(base: Base, requests: GenerateRequest[], io: Io): Generation[] {
  const generations = requests.map((request) => base.generate(request));
  io.signal.addEventListener('abort', () => generations.forEach((generation) => generation.cancel()), { once: true });
  return generations;
}

async function answerPlain(base: Base, request: GenerateRequest, io: Io): Promise<void> {
  const [generation] = startAll(base, [request], io);
  let last = '';
  for await (const { text } of generation!) {
    io.stdout.write(io.stdout.isTty ? printable(text) : text);
    last = text || last;
  }
  const isInterrupted = io.signal.aborted;
  if (!last.endsWith('\n') && !isInterrupted) io.stdout.line();
  if (isInterrupted) throw new Interrupted();
}

async function answerLabelled(base: Base, requests: GenerateRequest[], io: Io): Promise<void> {
  const output = new LabelledOutput(io.stdout, requests.map(labelOf));
  const generations = startAll(base, requests, io);
  try {
    await Promise.all(
      generations.map(async (generation, i) => {
        for await (const { text } of generation) output.push(i, text);
        output.end(i);
      }),
    );
  } finally {
    generations.forEach((generation) => generation.cancel());
    output.close();
  }
  if (io.signal.aborted) throw new Interrupted();
}

async function answerJson(base: Base, requests: GenerateRequest[], io: Io): Promise<void> {
  const results = await Promise.all(startAll(base, requests, io).map((generation) => generation.result));
  if (io.signal.aborted) throw new Interrupted();
  const { family, parameters, dtype, device } = base.info;
  json(io, {
    base: { family, parameters, dtype, device },
    results: results.map((result: Result, i) => ({ adapter: requests[i]!.adapter ?? null, ...result })),
  });
}
