// What a process or a worker thread does in one scenario; bundled and run by process.test.ts. Arguments: scenario, base, adapter.

import { once } from 'node:events';
import { createReadStream, readdirSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { loadBase, type Base } from '../../../src/index.js';

const [scenario, path, adapter] = (isMainThread ? process.argv.slice(2) : (workerData as string[])) as [
  string,
  string,
  string,
];
const limits = { deviceMemory: '16MiB' };
const long = { prompt: 'hello', maxTokens: 2000, ignoreEos: true };
const say = (text: string) => process.stdout.write(`${text}\n`);

async function loadWithAdapter(): Promise<Base> {
  const base = await loadBase({ path, limits });
  await base.registerAdapter('a', adapter);
  return base;
}

/** The adapter's folder as a caller would hold it in memory; `tensors` as a stream if `isStream`. */
function inMemory(isStream = false) {
  const weights = join(adapter, 'adapter_model.safetensors');
  return {
    config: JSON.parse(readFileSync(join(adapter, 'adapter_config.json'), 'utf8')) as object,
    tensors: isStream ? createReadStream(weights, { highWaterMark: 512 }) : readFileSync(weights),
  };
}

/** Folders of spooled adapters. */
const spools = () => readdirSync(tmpdir()).filter((name) => name.startsWith('openlora-spool-')).length;

async function runInWorker(name: string, terminates: boolean): Promise<void> {
  const worker = new Worker(new URL(import.meta.url), { workerData: [name, path, adapter] });
  // Asked for first: a thread that ends at its message's heels emits both events before whoever waits goes on.
  const exit = once(worker, 'exit');
  await once(worker, 'message');
  if (terminates) await worker.terminate();
  else await exit;
}

const SCENARIOS: Record<string, () => Promise<void>> = {
  /** An idle base keeps no process alive. */
  idle: async () => {
    const base = await loadWithAdapter();
    say(String((await base.generate({ ...long, maxTokens: 5 }).result).tokens.length));
  },
  /** Each of these is all that the process waits for. */
  waiting: async () => {
    const base = await loadWithAdapter();
    const running = base.generate({ ...long, maxTokens: 50, adapter: 'a' }).result;
    await base.unregisterAdapter('a');
    say((await running).finishReason);
    await base.registerAdapter('a', adapter);
    await base.unregisterAdapter('a');
    await base.drain();
    await base.dispose();
    say('disposed');
  },
  /** A failed load leaves nothing that keeps the process alive. */
  failing: async () => {
    await loadBase({ path, limits: { deviceMemory: '1MiB', maxContext: 4096 } }).catch((error: { code: string }) =>
      say(error.code),
    );
  },
  /** The process goes in the midst of a step. */
  leaving: async () => {
    const base = await loadWithAdapter();
    for (let i = 0; i < 8; i++) base.generate({ ...long, adapter: 'a' });
    const loading = loadBase({ path, limits });
    for await (const _ of base.generate(long)) break;
    say('leaving');
    void loading;
    process.exit(0);
  },
  /** Errors that nobody reads end no process. */
  unread: async () => {
    const base = await loadWithAdapter();
    base.generate({ ...long, adapter: 'nobody' });
    base.generate({ ...long, signal: AbortSignal.timeout(5) });
    base.generate(long);
    await new Promise((resolve) => setTimeout(resolve, 30));
    await base.dispose();
    say('alive');
  },
  /** Worker threads that are terminated with work in flight, beside a base in the main thread that goes on. */
  terminating: async () => {
    const base = await loadWithAdapter();
    const alone = await base.generate({ ...long, maxTokens: 300, adapter: 'a' }).text();
    for (let round = 0; round < 5; round++) {
      const running = base.generate({ ...long, maxTokens: 300, adapter: 'a' }).text();
      const workers = ['worker-running', 'worker-loading', 'worker-registering', 'worker-disposing'];
      await Promise.all(workers.map((name) => runInWorker(name, true)));
      if ((await running) !== alone) say('the neighbour changed');
    }
    await base.dispose();
    say('terminated');
  },
  /** A whole life in a worker thread. */
  worker: async () => {
    await runInWorker('worker-whole', false);
    say('worked');
  },
  /** Adapters in memory, in the midst of whose registration the process exits. */
  spooling: async () => {
    const base = await loadBase({ path, limits });
    await base.registerAdapter('a', inMemory());
    for (let i = 0; i < 8; i++) void base.registerAdapter(`a${i}`, inMemory(true)).catch(() => undefined);
    say(String(spools()));
    process.exit(0);
  },
  /** A process that can't clean up. */
  'killed while spooling': async () => {
    const base = await loadBase({ path, limits });
    await base.registerAdapter('a', inMemory());
    say(String(spools()));
    setInterval(() => undefined, 1000);
  },
  /** Threads that are terminated with adapters in memory: what they leave goes with the next spool. */
  'spooling in threads': async () => {
    const base = await loadBase({ path, limits });
    await base.registerAdapter('a', inMemory());
    for (let round = 0; round < 3; round++) {
      await runInWorker('worker-spooling', true);
      const other = await loadBase({ path, limits });
      await other.registerAdapter('a', inMemory(true));
      say(`${spools()} ${(await other.generate({ ...long, maxTokens: 5, adapter: 'a' }).result).tokens.length}`);
      await other.dispose();
    }
    say((await base.generate({ ...long, maxTokens: 5, adapter: 'a' }).result).finishReason);
    await base.dispose();
    say(String(spools()));
  },
  'worker-spooling': async () => {
    const base = await loadBase({ path, limits });
    await base.registerAdapter('a', inMemory());
    for (let i = 0; i < 8; i++) void base.registerAdapter(`a${i}`, inMemory(true)).catch(() => undefined);
    parentPort!.postMessage('spooling');
    await new Promise(() => setInterval(() => undefined, 1000));
  },
  'worker-running': async () => {
    const base = await loadWithAdapter();
    for (let i = 0; i < 8; i++) base.generate({ ...long, adapter: 'a' });
    for await (const _ of base.generate(long)) break;
    parentPort!.postMessage('running');
  },
  'worker-loading': async () => {
    await new Promise<void>((resolve) => {
      void loadBase({ path, limits, onProgress: () => resolve() });
    });
    parentPort!.postMessage('loading');
  },
  'worker-registering': async () => {
    const base = await loadBase({ path, limits });
    for (let i = 0; i < 8; i++) void base.registerAdapter(`a${i}`, adapter).catch(() => undefined);
    await base.registerAdapter('a', adapter);
    for (let i = 8; i < 16; i++) void base.registerAdapter(`a${i}`, adapter).catch(() => undefined);
    parentPort!.postMessage('registering');
  },
  'worker-disposing': async () => {
    const base = await loadWithAdapter();
    for (let i = 0; i < 8; i++) base.generate({ ...long, adapter: 'a' });
    for await (const _ of base.generate(long)) break;
    void base.dispose();
    parentPort!.postMessage('disposing');
  },
  'worker-whole': async () => {
    const base = await loadWithAdapter();
    const { finishReason } = await base.generate({ ...long, maxTokens: 20, adapter: 'a' }).result;
    await base.dispose();
    parentPort!.postMessage(finishReason);
  },
};

await SCENARIOS[scenario]!();
