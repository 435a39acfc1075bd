// A child process: llama.cpp by node-llama-cpp's prebuilt addon, on the CPU.
//
// Batches are handed to its binding of llama_decode directly, and nothing is sampled: neither JavaScript's scheduling nor
// copies of logits are counted against the peer.

import { readFileSync } from 'node:fs';
import { medianOf } from '../../src/cli/bench/report.js';
import { namedShape } from '../../src/cli/bench/shapes.js';
import { answer, promptOf, readWork, type Sample } from './work.js';

/** What is used of node-llama-cpp, whose types aren't here unless it is installed. `_` marks what isn't public there. */
interface Binding {
  initBatch(tokens: number): void;
  addToBatch(sequence: number, first: number, tokens: Uint32Array, logits: Uint32Array): unknown;
  decodeBatch(): Promise<void>;
  disposeSequence(sequence: number): void;
  setLoras(adapters: object[], scales: number[]): void;
  getThreads(): number;
}
interface Sequence {
  controlledEvaluate(
    input: (number | [number, object])[],
  ): Promise<({ next: { probabilities?: Map<number, number> } } | undefined)[]>;
}
interface Context {
  _ctx: Binding;
  getSequence(): Sequence;
  dispose(): Promise<void>;
}
interface Model {
  createContext(options: Record<string, unknown>): Promise<Context>;
  _getOrLoadLora(path: string): Promise<object>;
}
interface Llama {
  systemInfo: string;
  logLevel: string;
  llamaCppRelease: { release: string };
  buildType: string;
  gpu: unknown;
  loadModel(options: Record<string, unknown>): Promise<Model>;
}
interface Library {
  getLlama(options: Record<string, unknown>): Promise<Llama>;
}

const UBATCH = 512;

const work = readWork();
const { sizes } = work;
const { vocab } = namedShape(sizes.model);
const logs: string[] = [];

const name = 'node-llama-cpp';
const library = (await import(name)) as Library;
const llama = await library.getLlama({
  ...{ gpu: false, build: 'never', skipDownload: true, maxThreads: sizes.threads, logLevel: 'debug' },
  logger: (_level: string, message: string) => logs.push(message),
});
const began = performance.now();
const model = await llama.loadModel({ modelPath: work.base, gpuLayers: 0, ignoreMemorySafetyChecks: true });
const loadMs = performance.now() - began;
// What it said meanwhile arrives a little later.
await new Promise((resolve) => setTimeout(resolve, 200));
llama.logLevel = 'info';

/** KV of `length` tokens for each of `sequences`. */
async function openContext(sequences: number, length: number, threads = sizes.threads): Promise<Context> {
  const context = await model.createContext({
    ...{ sequences, contextSize: length, threads, batchSize: UBATCH },
    ...{ ignoreMemorySafetyChecks: true, failedCreationRemedy: false },
  });
  if (context._ctx.getThreads() !== threads)
    throw new Error(`a context computes with ${context._ctx.getThreads()} threads, wanted ${threads}`);
  return context;
}

/** Computes a prompt for one sequence from its beginning, with logits of its last token. */
async function prefill({ _ctx }: Context, sequence: number, length: number, seed: number): Promise<void> {
  const tokens = Uint32Array.from(promptOf(length, vocab, seed));
  for (let first = 0; first < length; first += UBATCH) {
    const part = tokens.subarray(first, first + UBATCH);
    const isLast = first + part.length === length;
    _ctx.initBatch(part.length);
    _ctx.addToBatch(sequence, first, part, Uint32Array.from(isLast ? [part.length - 1] : []));
    await _ctx.decodeBatch();
  }
}

/** One token for each of `sequences` sequences, at this position, with logits. */
async function step({ _ctx }: Context, sequences: number, position: number): Promise<void> {
  _ctx.initBatch(sequences);
  for (let i = 0; i < sequences; i++) {
    const token = 300 + ((position * 31 + i * 17) % (vocab - 300));
    _ctx.addToBatch(i, position, Uint32Array.of(token), Uint32Array.of(0));
  }
  await _ctx.decodeBatch();
}

async function decode(batch: number): Promise<Sample> {
  const { context: length, steps, windows } = sizes;
  const context = await openContext(batch, length + (windows + 1) * steps);
  for (let i = 0; i < batch; i++) await prefill(context, i, length, i);
  let position = length;
  // What is slow the first time: the graph of this batch size.
  for (let i = 0; i < 2; i++) await step(context, batch, position++);
  const speeds: number[] = [];
  for (let window = 0; window < windows; window++) {
    const from = performance.now();
    for (let i = 0; i < steps; i++) await step(context, batch, position++);
    speeds.push((batch * steps * 1000) / (performance.now() - from));
  }
  await context.dispose();
  return { row: `decode/${batch}`, tokensPerSecond: medianOf(speeds) };
}

async function prefills(): Promise<Sample> {
  const { prompt } = sizes;
  const context = await openContext(1, prompt);
  await prefill(context, 0, prompt, 0);
  context._ctx.disposeSequence(0);
  const from = performance.now();
  await prefill(context, 0, prompt, 1);
  const tokensPerSecond = (prompt * 1000) / (performance.now() - from);
  await context.dispose();
  return { row: `prefill/${prompt}`, tokensPerSecond };
}

/** A request from the beginning of its prompt to its last token. */
async function request(context: Context, seed: number): Promise<void> {
  context._ctx.disposeSequence(0);
  await prefill(context, 0, sizes.context, seed);
  for (let i = 1; i < sizes.tokens; i++) await step(context, 1, sizes.context + i - 1);
}

async function timed(way: string, serve: () => Promise<unknown>): Promise<Sample> {
  const { tokens, adapters } = sizes;
  const from = performance.now();
  await serve();
  const tokensPerSecond = (adapters * tokens * 1000) / (performance.now() - from);
  return { row: `adapters/${adapters}`, tokensPerSecond, way };
}

/**
 * llama_decode applies the same adapters to all of a batch: so one after another, or one context each. Adapters are in memory
 * before, and the contexts have computed something.
 */
async function adapterWays(): Promise<Sample[]> {
  const loras = await Promise.all(work.adapters.map((path) => model._getOrLoadLora(path)));
  const length = sizes.context + sizes.tokens;
  const open = async (lora: object, threads?: number) => {
    const context = await openContext(1, length, threads);
    context._ctx.setLoras([lora], [1]);
    await step(context, 1, 0);
    return context;
  };
  const one = await open(loras[0]!);
  const samples = [
    await timed('one after another', async () => {
      for (const [i, lora] of loras.entries()) {
        one._ctx.setLoras([lora], [1]);
        await request(one, i);
      }
    }),
  ];
  await one.dispose();
  const each: Context[] = [];
  for (const lora of loras) each.push(await open(lora, Math.max(1, Math.floor(sizes.threads / loras.length))));
  samples.push(await timed('one context each, all at once', () => Promise.all(each.map(request))));
  return samples;
}

/** Probabilities of the next token after a prompt. */
async function probabilities(lora?: object): Promise<Map<number, number>> {
  const context = await openContext(1, 64);
  context._ctx.setLoras(lora ? [lora] : [], lora ? [1] : []);
  const tokens = promptOf(8, vocab, 0);
  const asked = [tokens.at(-1)!, { generateNext: { probabilities: true } }] as [number, object];
  const found = await context.getSequence().controlledEvaluate([...tokens.slice(0, -1), asked]);
  await context.dispose();
  return found.at(-1)!.next.probabilities!;
}

/** That the files say something finite, and that an adapter changes it: else the speed means nothing. */
async function check(): Promise<void> {
  const base = await probabilities();
  const sum = [...base.values()].reduce((total, value) => total + value, 0);
  if (base.size !== vocab || !(Math.abs(sum - 1) < 1e-3))
    throw new Error(`${base.size} probabilities make ${sum}, wanted 1 of ${vocab}`);
  if (work.adapters.length === 0) return;
  const other = await probabilities(await model._getOrLoadLora(work.adapters[0]!));
  if (![...base].some(([token, value]) => value !== other.get(token)))
    throw new Error('an adapter changes no probability');
}

await check();
const samples: Sample[] = [];
for (const batch of sizes.batches) samples.push(await decode(batch));
if (sizes.prompt > 0) samples.push(await prefills());
if (sizes.adapters > 0) samples.push(...(await adapterWays()));

const version = (file: string) =>
  (JSON.parse(readFileSync(new URL(file, import.meta.resolve(name)), 'utf8')) as { version: string }).version;
/** As llama.cpp counts them when it reads the file. */
const types = logs.flatMap((text) => /- type +(\S+): +(\d+) tensors/.exec(text)?.slice(1, 3).reverse().join(' ') ?? []);
const buffers = logs.flatMap((text) => /(\S+) model buffer size = +([\d.]+ MiB)/.exec(text)?.slice(1).join(' ') ?? []);
const backend = logs.flatMap((text) => /loaded CPU backend from (\S+)/.exec(text)?.[1]?.split('/').at(-1) ?? []);
await answer({
  samples,
  loadMs,
  peakRssMib: process.resourceUsage().maxRSS / 1024,
  facts: {
    'node-llama-cpp': version('../package.json'),
    'llama.cpp': llama.llamaCppRelease.release,
    build: `${llama.buildType}, gpu ${String(llama.gpu)}`,
    backend: backend.join(', '),
    'system info': llama.systemInfo.trim(),
    'tensors read': types.join(', '),
    buffers: buffers.join(', '),
    threads: sizes.threads,
    kv: 'f16',
  },
});
