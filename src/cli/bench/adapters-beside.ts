// What a few points of comparison show: more adapters in use than fit, step by step, and a model of its own for each.

import { freemem } from 'node:os';
import { runLoop, SeededRandom, traceOf } from './adapter-trace.js';
import { AdaptersBase, heldBytes, type AdaptersContext } from './adapters-base.js';
import { once } from './model-session.js';
import { medianRatio, quantileSummary, summary, type Line } from './report.js';

const TIMES = [0.5, 1, 2, 4, 8] as const;
const FITTING = 16;
const FITTING_QUICK = 2;
/** For the base alone, where a per cent is looked for, so many times as many runs as of other requests, each of a part of them. */
const BASE_ONLY_REPEATS = 8;
const BASE_ONLY_PART = 4;
/** Models, each with an adapter. */
const MODELS = 2;
const MEMORY_SHARE = 0.8;

/** First tokens where 0.5 to 8 times as many adapters are in use, evenly, as fit. */
export async function measureCapacity(context: AdaptersContext): Promise<void> {
  const { settings, folder, add } = context;
  const [available, most] = [folder.adapters.length, TIMES.at(-1)!];
  const wanted = settings.isQuick ? FITTING_QUICK : Math.max(FITTING, settings.atOnce + 2);
  const some = await AdaptersBase.open(context, {
    fitting: Math.max(2, Math.min(wanted, Math.floor(available / most))),
  });
  try {
    const { fitting } = some; // of a very small base more than was wanted: there is a least pool
    await some.register(Math.min(available, most * fitting));
    some.forgetFiles();
    for (const times of TIMES) {
      const inUse = Math.round(times * fitting);
      if (inUse > available) break;
      const trace = (repeat: number) =>
        traceOf('uniform', inUse, settings.requests, new SeededRandom(1000 * inUse + repeat));
      await some.run(trace(0).slice(0, 2 * inUse), true);
      const runs = [];
      for (let repeat = 1; repeat <= settings.repeats; repeat++) runs.push(await some.run(trace(repeat), true));
      const ms = runs.flatMap((run) => run.served.map(({ ttftMs }) => ttftMs));
      const name = `${times} × the ${fitting} that fit`;
      add(
        { name, unit: 'tokens/s', better: 'higher', ...summary(runs.map((run) => (run.tokens / run.ms) * 1000)) },
        ...([50, 99] as const).map((percent): Line => ({
          name: `${name}, first token p${percent}`,
          ...{ unit: 'ms', better: 'lower', plot: `first token p${percent}, adapters in use over those that fit` },
          ...quantileSummary(ms, percent / 100),
        })),
      );
    }
  } finally {
    await some.close();
  }
}

/**
 * Requests for the base alone, on the one that has the adapters and on two others that have none: what those two differ in
 * is what the machine does by itself.
 */
export async function measureBaseOnly(context: AdaptersContext, few: AdaptersBase, name: string): Promise<void> {
  const { settings, add } = context;
  const trace = new Array<undefined>(Math.ceil(settings.requests / BASE_ONLY_PART)).fill(undefined);
  const bases: [name: string, on: AdaptersBase][] = [[`${name}, base alone`, few]];
  const speeds = new Map<string, number[]>();
  try {
    for (const other of [`${name}, base alone on another`, `${name}, base alone on a third`])
      bases.push([other, await AdaptersBase.open(context, { fitting: few.fitting, hasNoPacks: true })]);
    for (const [, on] of bases) await on.settle(trace, false);
    for (let repeat = 0; repeat < BASE_ONLY_REPEATS * settings.repeats; repeat++) {
      for (let i = 0; i < bases.length; i++) {
        const [of, on] = bases[(i + repeat) % bases.length]!;
        const { tokens, ms } = await on.run(trace, false);
        speeds.set(of, [...(speeds.get(of) ?? []), (tokens / ms) * 1000]);
      }
    }
  } finally {
    await Promise.all(bases.slice(1).map(([, on]) => on.close()));
  }
  const [[, ofNone]] = [...speeds].slice(1) as [[string, number[]]];
  for (const [of, found] of speeds) {
    const speed = { unit: 'tokens/s', better: 'higher', ...summary(found) } as const;
    add({ name: of, ...speed, ...(found === ofNone ? {} : { retention: medianRatio(found, ofNone) }) });
  }
}

/** A full model for each adapter, measured with a few: memory of each, and all of them at work. */
export async function measureModels(context: AdaptersContext): Promise<void> {
  const { settings, add, io } = context;
  if (context.folder.adapters.length < MODELS) return;
  const trace = traceOf('uniform', MODELS, settings.requests, new SeededRandom(7));
  const models: AdaptersBase[] = [];
  const grown: number[] = [];
  try {
    for (let i = 0; i < MODELS; i++) {
      const before = process.memoryUsage.rss();
      const free = freemem();
      const model = await AdaptersBase.open(context, { fitting: MODELS, isAlone: true });
      models.push(model);
      await model.register(MODELS);
      await model.warm(MODELS);
      grown.push((process.memoryUsage.rss() - before) / 2 ** 20);
      if (i + 1 < MODELS && freemem() < (1 - MEMORY_SHARE) * free) {
        io.stderr.line('too little memory for a second model: one model for each adapter is left out');
        return;
      }
    }
    const [one] = models as [AdaptersBase];
    const ofModels: number[] = [];
    const ofOne: number[] = [];
    for (let repeat = 0; repeat < settings.repeats; repeat++) {
      for (const isShared of [false, true]) {
        const loop = { atOnce: settings.atOnce, idOf: one.idOf, signal: io.signal };
        const baseOf = (adapter = 0) => (isShared ? one : models[adapter]!).base;
        const run = await runLoop(
          { ...loop, baseOf },
          trace.map((adapter) => one.request(adapter)),
        );
        (isShared ? ofOne : ofModels).push((run.tokens / run.ms) * 1000);
      }
    }
    const speed = { unit: 'tokens/s', better: 'higher' } as const;
    const grownOfLast = grown.slice(1).filter((mib) => mib > 0);
    add(
      { name: `${MODELS} adapters, a model for each`, ...speed, ...summary(ofModels) },
      { name: `${MODELS} adapters, one model`, ...speed, ...summary(ofOne) },
      ...(grownOfLast.length > 0
        ? [{ ...once('memory of a model more', 'MiB', 1), plot: 'memory', ...summary(grownOfLast) }]
        : []),
      { ...once('memory of an adapter more, computed', 'MiB', heldBytes(context) / 2 ** 20), plot: 'memory' },
    );
  } finally {
    await Promise.all(models.map((model) => model.close()));
  }
}
