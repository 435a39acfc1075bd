// A child process: openlora by its public SDK, with the parts of `openlora bench` that measure models.

import { attentionWork, ModelSession } from '../../src/cli/bench/model-session.js';
import { medianOf } from '../../src/cli/bench/report.js';
import { RunningBatch, type Window } from '../../src/cli/bench/running-batch.js';
import { BATCH_ROWS, type ModelSettings } from '../../src/cli/bench/settings.js';
import { adapterBytes } from '../../src/cli/bench/random-weights.js';
import { namedShape } from '../../src/cli/bench/shapes.js';
import { Output, type Io } from '../../src/cli/io.js';
import { packageVersion } from '../../src/native/package-root.js';
import { answer, promptOf, readWork, type OurFormat, type Sample } from './work.js';

/** Tokens that the engine may be ahead of this thread: more than it lets wait for a reader. */
const AHEAD = 256;
const KV = { f32: 'f32', bf16: 'bf16', f16: 'f16', int8: 'bf16', int4: 'bf16' } as const;

const work = readWork();
const { sizes } = work;
const shape = namedShape(sizes.model);
const format = work.format as OurFormat;
const isDot = format === 'bf16-dot';
const dtype = isDot ? 'bf16' : format;
const settings: ModelSettings = {
  ...{ bench: 'decode', device: 'cpu', shape, simd: 'auto', repeats: 1, folder: undefined, isQuick: false },
  ...{ dtype, kvDtype: KV[dtype], compute: isDot ? 'bf16' : 'f32', adapterDtype: 'auto' },
  ...{ threads: sizes.threads, adapters: work.adapters.length, rank: sizes.rank },
  ...{ batches: sizes.batches, prompts: [sizes.context] },
};
const controller = new AbortController();
const io: Io = {
  stdin: process.stdin,
  stdout: new Output(process.stderr, process.env),
  stderr: new Output(process.stderr, process.env),
  env: process.env,
  signal: controller.signal,
};

/** What a request generates at most: beside the prompts of others, in the windows, and ahead of this thread. */
function tokensMax(batch: number): number {
  const { context, steps, windows } = sizes;
  return 2 * Math.ceil((batch * context) / BATCH_ROWS) + batch + (windows + 1) * steps + AHEAD;
}

const rowsMax = Math.max(...sizes.batches, sizes.adapters, 1);
const context = Math.max(sizes.context + Math.max(tokensMax(rowsMax), sizes.tokens), sizes.prompt + 1);
const folder = { base: work.base, adapters: work.adapters, adapterBytes: adapterBytes(shape, sizes.rank, 'f32') };
const session = await ModelSession.open(folder, settings, { context, sequences: rowsMax }, io);
const loadMs = session.loading[0]!.median;
const { base } = session;

/** Of one step: weights and adapters by the engine's counters, and KV. */
function bytesOf({ weightBytes, loraBytes, rows, context: tokens }: Window): number {
  return weightBytes + loraBytes + attentionWork(settings, rows * tokens).bytes;
}

async function decode(batch: number): Promise<Sample> {
  const { steps, windows } = sizes;
  const requests = Array.from({ length: batch }, (_, i) => ({
    tokens: promptOf(sizes.context, shape.vocab, 1000 * batch + i),
  }));
  const running = new RunningBatch(base, requests, tokensMax(batch), io.signal);
  try {
    await running.ready();
    await running.window(2);
    const found = [];
    for (let i = 0; i < windows; i++) found.push(await running.window(steps));
    return {
      row: `decode/${batch}`,
      tokensPerSecond: medianOf(found.map(({ tokensPerSecond }) => tokensPerSecond)),
      bytes: medianOf(found.map(bytesOf)),
    };
  } finally {
    await running.close();
  }
}

async function prefills(): Promise<Sample> {
  const { prompt } = sizes;
  const once = async (seed: number) => {
    const tokens = promptOf(prompt, shape.vocab, seed);
    return (await base.generate({ tokens, maxTokens: 1, ignoreEos: true, temperature: 0 }).result).timing;
  };
  await once(0);
  const { ttftMs, queuedMs } = await once(1);
  return { row: `prefill/${prompt}`, tokensPerSecond: (prompt * 1000) / (ttftMs - queuedMs) };
}

/** From the first request to the last token of all; each adapter has answered before. */
async function adapters(): Promise<Sample> {
  const { tokens: maxTokens } = sizes;
  const ids = session.adapterIds;
  const request = (adapter: string, seed: number) => {
    const tokens = promptOf(sizes.context, shape.vocab, seed);
    return base.generate({ tokens, adapter, maxTokens, ignoreEos: true, temperature: 0 }).result;
  };
  const from = performance.now();
  await Promise.all(ids.map(request));
  const tokensPerSecond = (ids.length * maxTokens * 1000) / (performance.now() - from);
  return { row: `adapters/${ids.length}`, tokensPerSecond, way: 'in one batch' };
}

const samples: Sample[] = [];
for (const batch of sizes.batches) samples.push(await decode(batch));
if (sizes.prompt > 0) samples.push(await prefills());
if (sizes.adapters > 0) samples.push(await adapters());
await base.dispose();
await answer({
  samples,
  loadMs,
  peakRssMib: process.resourceUsage().maxRSS / 1024,
  facts: { openlora: packageVersion(), threads: sizes.threads, kv: KV[dtype] },
});
