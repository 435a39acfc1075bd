// `openlora demo`: one base, every adapter of the demo family, mixed requests at once, by the public SDK alone.

import { resolve } from 'node:path';
import type { AdapterInfo, Base } from '../../index.js';
import { openBase } from '../base-options.js';
import { defineCommand } from '../command.js';
import { EXIT_FAILURE, EXIT_OK, Interrupted, throwIfInterrupted } from '../errors.js';
import { json, type Io } from '../io.js';
import { formatBytes, formatCount, formatMs, formatShort } from '../text.js';
import { compareMemory, type MemoryComparison } from './memory.js';
import { printMemory, printSummary, scoreOf, summarise, type DemoSummary } from './report.js';
import { rowsOf, serve, type DemoRow, type Served } from './serve.js';
import { adapterFolder, chooseRequests, demoFolder, expectedRight, readFamily, type DemoFamily } from './tasks.js';
import { LiveTable, plainTable } from './view.js';

export const demo = defineCommand({
  name: 'demo',
  summary: 'serve 64 mixed requests for twelve adapters on one base, live',
  usage: '[options]',
  details:
    'Loads the small base and the adapters that come with the package, sends every request at once, each with its own adapter, and checks the answers. Exit code 1 if fewer are right than expected.',
  options: {
    requests: { kind: 'integer', value: 'N', min: 1, max: 4096, summary: 'how many at once (default: 64)' },
    seed: { kind: 'integer', value: 'N', min: 0, max: 1_000_000, summary: 'which prompts (default: 0)' },
    threads: {
      kind: 'integer',
      value: 'N',
      min: 1,
      max: 1024,
      summary: 'of the engine (default: the cores that the process may use)',
    },
    fast: { kind: 'flag', summary: 'show answers as fast as they come; on a terminal they are slowed for the eye' },
    'no-memory': { kind: 'flag', summary: 'leave out the memory comparison' },
    folder: { kind: 'text', value: 'DIR', path: 'folder', summary: 'another demo family', isHidden: true },
  },
  examples: ['openlora demo', 'openlora demo --requests 256 --fast', 'openlora demo --json'],
  async run({ options, io }) {
    const family = readFamily(resolve(options.folder ?? demoFolder()));
    const requests = chooseRequests(family.adapters, options.requests ?? 64, options.seed ?? 0);
    const isQuiet = options.json;
    const { rows, summary } = await serveFamily(family, rowsOf(requests), options, io);
    if (!isQuiet) printSummary(io.stdout, summary);
    const memory = options['no-memory'] ? undefined : await measured(family, options.threads, io);
    if (memory && !isQuiet) printMemory(io.stdout, memory);
    if (isQuiet) json(io, { summary, memory: memory ?? null, requests: rows });
    return summary.right >= summary.expectedAtLeast ? EXIT_OK : EXIT_FAILURE;
  },
});

interface DemoOptions {
  json: boolean;
  fast: boolean;
  threads: number | undefined;
}

async function serveFamily(
  family: DemoFamily,
  rows: DemoRow[],
  options: DemoOptions,
  io: Io,
): Promise<{ rows: DemoRow[]; summary: DemoSummary }> {
  const from = performance.now();
  const base = await openBase(family.base, { dtype: undefined, threads: options.threads }, io);
  try {
    const infos = new Map<string, AdapterInfo>();
    for (const { name } of family.adapters) {
      throwIfInterrupted(io.signal);
      infos.set(name, await base.registerAdapter(name, adapterFolder(family, name), { signal: io.signal }));
    }
    if (!options.json) printHead(base, [...infos.values()], performance.now() - from, rows.length, io);
    const served = await showServing(base, rows, options, io);
    const scores = family.adapters.map((adapter) => scoreOf(adapter, infos.get(adapter.name)!, rows));
    return { rows, summary: summarise(served, scores, base.stats().bytes.base, expectedRight(rows, family.adapters)) };
  } finally {
    await base.dispose();
  }
}

async function showServing(base: Base, rows: DemoRow[], options: DemoOptions, io: Io): Promise<Served> {
  const { stdout, signal } = io;
  if (options.json || !stdout.isTty) {
    const served = await serve(base, rows, signal);
    throwIfInterrupted(signal);
    if (!options.json) for (const line of plainTable(rows, stdout.style)) stdout.line(line);
    return served;
  }
  const view = new LiveTable(stdout, rows, { isPaced: !options.fast, signal });
  try {
    const served = await serve(base, rows, signal);
    const rate = formatCount((served.tokensOut * 1000) / served.wallMs);
    await view.finish(`done in ${formatMs(served.wallMs)}, ${rate} tokens/s${options.fast ? '' : '; shown slowed'}`);
    throwIfInterrupted(signal);
    return served;
  } catch (error) {
    view.abort();
    throw signal.aborted ? new Interrupted() : error;
  }
}

function printHead(base: Base, adapters: AdapterInfo[], ms: number, requests: number, io: Io): void {
  const { stdout } = io;
  const { style } = stdout;
  const { family, parameters, dtype } = base.info;
  const ranks = adapters.map(({ rank }) => rank);
  const bytes = adapters.reduce((sum, adapter) => sum + adapter.bytes, 0);
  stdout.line(
    `${style.bold('one base')}      ${family}, ${formatShort(parameters)} parameters, ${dtype}, ${formatBytes(base.stats().bytes.base)}`,
  );
  stdout.line(
    `${style.bold(`${adapters.length} adapters`)}   ranks ${Math.min(...ranks.map(({ min }) => min))} to ${Math.max(...ranks.map(({ max }) => max))}, ${formatBytes(bytes)} together; all of it ready in ${formatMs(ms)}`,
  );
  stdout.line(`${style.bold(`${requests} requests`)}   sent at once, each with its own adapter, in shared batches`);
  stdout.line();
}

async function measured(
  family: DemoFamily,
  threads: number | undefined,
  io: Io,
): Promise<MemoryComparison | undefined> {
  if (io.stderr.isTty)
    io.stderr.write(
      io.stderr.style.dim(`measuring memory: ${family.adapters.length} full models against one shared base …`),
    );
  try {
    return await compareMemory(family, threads, io.signal);
  } finally {
    if (io.stderr.isTty) io.stderr.write('\r\u001b[K');
  }
}
