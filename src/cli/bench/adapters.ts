// `openlora bench adapters`: many adapters registered on one base, of which few fit into its memory.

import { freemem } from 'node:os';
import type { EngineStats, Tier } from '../../index.js';
import type { Io } from '../io.js';
import { formatBytes, formatCount } from '../text.js';
import { SeededRandom, TIER_WORDS, traceOf, TRACES, type LoopResult, type Served } from './adapter-trace.js';
import { AdaptersBase, type AdaptersContext } from './adapters-base.js';
import { measureBaseOnly, measureCapacity, measureModels } from './adapters-beside.js';
import { measureChurn, unpackedWanted } from './adapters-churn.js';
import { adapterFile, MODULES, removePacks, withAdaptersFolder, type AdaptersFolder } from './adapters-folder.js';
import { collectGarbage, measureRegistering } from './adapters-registering.js';
import type { Measured, OnLine } from './machine.js';
import { once } from './model-session.js';
import { forgetPages, measureLimits } from './native.js';
import { medianRatio, quantileSummary, summary, type Line } from './report.js';
import { kvDtypeOf, type AdaptersSettings } from './settings.js';

/** From so many on they don't all fit: the pool is this share of their bytes, the host tier that one. */
const SCARCE_FROM = 1000;
const SCARCE_FROM_QUICK = 20;
const POOL_SHARE = 0.05;
const HOST_SHARE = 0.2;
/** Of the memory that is free, the most that all adapters at once take. */
const MEMORY_SHARE = 0.6;
/** Requests before a kind of trace is measured, over the adapters that fit, and as many as are measured. */
const SETTLING = 2;
const TIERS = Object.keys(TIER_WORDS) as Tier[];

export async function benchAdapters(settings: AdaptersSettings, io: Io, onLine: OnLine): Promise<Measured> {
  return withAdaptersFolder(settings, io, async (folder) => {
    const { begun } = await measureLimits(settings.threads ?? 0, 1, io.signal);
    const lines: Line[] = [];
    const add = (...more: Line[]) => {
      lines.push(...more);
      more.forEach(onLine);
    };
    const context: AdaptersContext = { settings, folder, io, add, random: new SeededRandom(1) };
    const available = folder.adapters.length;
    const counts = [...new Set(settings.registered.map((count) => Math.min(count, available)))].sort((a, b) => a - b);
    const isDropped = forgetPages(adapterFile(folder.adapters[0]!));
    if (!isDropped)
      io.stderr.line("this system can't be asked to forget files: what comes from disk may come from memory");
    const shares: Shares = {};
    for (const count of counts) Object.assign(shares, await measureRegistered(context, count));
    await measureCapacity(context);
    await measureModels(context);
    const named = settings.simd === 'auto' ? begun : { ...begun, simd: settings.simd };
    return { begun: named, sizes: { ...sizesOf(settings, folder, counts, isDropped), ...shares }, lines };
  });
}

/** Of the adapters' bytes, in per cent: what a base was given, by what it is for. */
type Shares = Record<string, number>;

/** So many registered: what it takes, and how requests for them fare. */
async function measureRegistered(context: AdaptersContext, count: number): Promise<Shares> {
  const { settings, folder, add } = context;
  const name = `${formatCount(count)} registered`;
  const isScarce = count >= (settings.isQuick ? SCARCE_FROM_QUICK : SCARCE_FROM);
  removePacks(folder.cache);
  const few = await AdaptersBase.open(context, {
    fitting: isScarce ? undefined : count,
    poolBytes: POOL_SHARE * count * folder.adapterBytes,
    hostBytes: isScarce ? HOST_SHARE * count * folder.adapterBytes : undefined,
    hasListeners: isScarce,
  });
  let all: AdaptersBase | undefined;
  try {
    await measureRegistering(context, few, count, name);
    few.forgetFiles();
    const cold = await few.warm(isScarce ? few.fitting : count);
    add(
      ...firstTokens(
        `${name}, first requests`,
        cold.served.filter(({ tier }) => tier !== 'resident'),
      ),
    );
    if (isScarce) await packAndLoad(context, few, count, name);
    if (isScarce) all = await openAllResident(context, count);
    const ofFew: LoopResult[] = [];
    for (const kind of TRACES) {
      const runs = await runTraces(context, kind, few, all);
      ofFew.push(...runs.few);
      add(...tracesLines(`${name}, ${kind}`, runs.few, all && { ofAll: runs.all, count: all.registered }));
    }
    await all?.close();
    all = undefined;
    collectGarbage();
    add(...bytesLines(name, ofFew, few.base.stats(), process.memoryUsage.rss()));
    if (isScarce) await measureBaseOnly(context, few, name);
  } finally {
    await all?.close();
    await few.close();
  }
  return isScarce ? sharesOf(few, count * folder.adapterBytes, formatCount(count)) : {};
}

function sharesOf({ poolBytes, hostBytes }: AdaptersBase, adapterBytes: number, count: string): Shares {
  const percent = (bytes: number) => Math.round((10_000 * bytes) / adapterBytes) / 100;
  return {
    [`pool, % of the bytes of ${count}`]: percent(poolBytes),
    ...(hostBytes === undefined ? {} : { [`host tier, % of the bytes of ${count}`]: percent(hostBytes) }),
  };
}

/** All are packed from then on; some of them, the last ones, beside running answers. */
async function packAndLoad(context: AdaptersContext, few: AdaptersBase, count: number, name: string): Promise<void> {
  const first = Math.min(few.fitting, count);
  const unpacked = Math.max(first, count - unpackedWanted(context.settings));
  const ms = await few.pack(first, unpacked);
  const line = { name: `${name}, packing ahead, of each`, unit: 'ms', better: 'lower', plot: 'registration' } as const;
  if (ms.length > 0) context.add({ ...line, ...quantileSummary(ms, 0.5) });
  await measureChurn(context, few, name, unpacked);
  await few.pack(unpacked, count);
}

/** All of them in memory, or as many as fit there. */
async function openAllResident(context: AdaptersContext, count: number): Promise<AdaptersBase> {
  const { io, folder } = context;
  const most = Math.floor((MEMORY_SHARE * freemem()) / folder.adapterBytes);
  const fitting = Math.min(count, Math.max(1, most));
  if (fitting < count)
    io.stderr.line(
      `${formatBytes(freemem())} of memory are free: all resident is ${formatCount(fitting)} of ${formatCount(count)}`,
    );
  const all = await AdaptersBase.open(context, { fitting, hasNoPacks: true, isPinned: true });
  try {
    await all.register(fitting);
    all.forgetFiles();
  } catch (error) {
    await all.close();
    throw error;
  }
  return all;
}

interface Runs {
  few: LoopResult[];
  all: LoopResult[];
}

/** The same requests on both by turns, each of them first by turns. */
async function runTraces(
  context: AdaptersContext,
  kind: (typeof TRACES)[number],
  few: AdaptersBase,
  all: AdaptersBase | undefined,
): Promise<Runs> {
  const { settings } = context;
  const runs: Runs = { few: [], all: [] };
  const settling = SETTLING * few.fitting + settings.requests;
  for (const on of all ? [few, all] : [few])
    await on.settle(traceOf(kind, on.registered, settling, new SeededRandom(99)), on === few);
  for (let repeat = 0; repeat < settings.repeats; repeat++) {
    const run = async (of: 'few' | 'all', on: AdaptersBase) => {
      // Where not all fit into memory, the same kind of trace over those that do.
      const trace = traceOf(kind, on.registered, settings.requests, new SeededRandom(100 + repeat));
      runs[of].push(await on.run(trace, of === 'few'));
    };
    if (all && repeat % 2 === 1) await run('all', all);
    await run('few', few);
    if (all && repeat % 2 === 0) await run('all', all);
  }
  return runs;
}

const speedsOf = (runs: readonly LoopResult[]) => runs.map(({ tokens, ms }) => (tokens / ms) * 1000);

function tracesLines(
  name: string,
  few: readonly LoopResult[],
  beside: { ofAll: readonly LoopResult[]; count: number } | undefined,
): Line[] {
  const speed = { unit: 'tokens/s', better: 'higher' } as const;
  const speeds = speedsOf(few);
  const one = summary(speeds);
  const lines: Line[] = [];
  if (beside) {
    const others = speedsOf(beside.ofAll);
    const all = { name: `${name}, all ${formatCount(beside.count)} resident`, ...speed, ...summary(others) };
    lines.push({ name, ...speed, ...one, retention: medianRatio(speeds, others) }, all);
  } else {
    lines.push({ name, ...speed, ...one });
  }
  const served = few.flatMap((run) => run.served);
  lines.push(...firstTokens(name, served));
  if (beside)
    lines.push(
      ...firstTokens(
        `${name}, all resident`,
        beside.ofAll.flatMap((run) => run.served),
      ),
    );
  for (const tier of TIERS) {
    const share = (some: readonly Served[]) =>
      (100 * some.filter((request) => request.tier === tier).length) / some.length;
    if (share(served) === 0) continue;
    const shares = few.map((run) => share(run.served));
    const better = tier === 'resident' ? 'higher' : 'lower';
    const plot = 'where requests found their adapters';
    lines.push({ name: `${name}, from ${TIER_WORDS[tier]}`, unit: '%', better, plot, ...summary(shares) });
  }
  return lines;
}

/** Of requests that found their adapters in each of the tiers. */
function firstTokens(name: string, served: readonly Served[]): Line[] {
  return TIERS.flatMap((tier) => {
    const ms = served.filter((request) => request.tier === tier).map(({ ttftMs }) => ttftMs);
    if (ms.length === 0) return [];
    return ([50, 99] as const).map((percent): Line => ({
      name: `${name}, first token p${percent}, ${TIER_WORDS[tier]}`,
      ...{ unit: 'ms', better: 'lower', plot: 'first token' },
      ...quantileSummary(ms, percent / 100),
    }));
  });
}

/** The most of each class that was held at the end of a request; a class that holds nothing has no line. */
function bytesLines(name: string, runs: readonly LoopResult[], stats: EngineStats, rssBytes: number): Line[] {
  const { base, adapters, kv, prefix, workspace, pool } = stats.bytes;
  const peak = (key: 'adapters' | 'kv' | 'prefix', now: number) => Math.max(now, ...runs.map((run) => run.peak[key]));
  const classes = {
    base,
    adapters: peak('adapters', adapters),
    KV: peak('kv', kv),
    prefixes: peak('prefix', prefix),
    workspace,
    pool,
    'the process (RSS)': rssBytes,
  };
  return Object.entries(classes).flatMap(([of, bytes]) =>
    bytes > 0 ? [{ ...once(`${name}, bytes of ${of}`, 'MiB', bytes / 2 ** 20), plot: 'memory' }] : [],
  );
}

function sizesOf(
  settings: AdaptersSettings,
  folder: AdaptersFolder,
  counts: readonly number[],
  isDropped: boolean,
): Record<string, string | number> {
  const { shape, dtype, kvDtype, compute, adapterDtype, rank, requests, atOnce, prompt, tokens, repeats } = settings;
  const asked = settings.registered.join(',');
  return {
    model: shape.name,
    dtype,
    ...(kvDtype !== kvDtypeOf(dtype) ? { KV: kvDtype } : {}),
    ...(compute === 'bf16' ? { compute } : {}),
    ...(adapterDtype === 'int8' ? { 'adapters held in': adapterDtype } : {}),
    registered: counts.join(','),
    ...(asked === counts.join(',') ? {} : { 'asked for': asked }),
    rank,
    modules: MODULES.join(' '),
    'adapter bytes': folder.adapterBytes,
    requests,
    'at once, closed loop': atOnce,
    prompt,
    tokens,
    repeats,
    'files in the page cache': isDropped ? 'dropped' : 'not dropped',
  };
}
