// Measures in rounds, then writes the result, the table of ratios and a page.

import { existsSync, writeFileSync } from 'node:fs';
import * as os from 'node:os';
import { measureLimits, type MeasuredLimits } from '../../src/cli/bench/native.js';
import { medianOf, summary, type BenchReport, type Line } from '../../src/cli/bench/report.js';
import { namedShape } from '../../src/cli/bench/shapes.js';
import { headOf, sizesOf } from '../../src/cli/bench/view.js';
import { Output } from '../../src/cli/io.js';
import { packageVersion } from '../../src/native/package-root.js';
import { withFiles } from './files.js';
import type { TensorType } from './gguf-blocks.js';
import { modelTensors, typesOf, type GgufFormat } from './gguf-model.js';
import { linesOf, ratiosOf, type Ratio } from './ratios.js';
import { playRounds, type Rounds } from './rounds.js';
import { readSettings, USAGE, type Settings } from './settings.js';
import { factLines, printLines, printRatios, ratiosPage } from './view.js';
import { nameOf, type Contestant, type Sizes } from './work.js';

/** By contestant: versions, instructions, dtypes, buffers. */
export type Facts = Record<string, Record<string, string | number>>;

/** What --json writes. */
export interface PeersReport extends Omit<BenchReport, 'schema' | 'bench'> {
  schema: 'openlora-peers/1';
  bench: 'peers';
  /** Medians of all looks at the machine during the run. */
  limits: Line[];
  ratios: Ratio[];
  facts: Facts;
  /** By format of llama.cpp's: the type of each tensor. */
  tensors: Record<string, Record<string, TensorType>>;
  /** Who took no part, and why. */
  absent: Record<string, string>;
}

/** Exit code. */
export async function main(args: string[]): Promise<number> {
  if (args.includes('--help')) {
    console.log(USAGE);
    return 0;
  }
  const interruption = new AbortController();
  const { signal } = interruption;
  const interrupt = () => interruption.abort();
  process.once('SIGINT', interrupt).once('SIGTERM', interrupt);
  try {
    const settings = readSettings(args);
    const report = await run(settings, ['node bench/peers/run.mjs', ...args].join(' '), signal);
    writeFileSync(settings.json, `${JSON.stringify(report, null, 2)}\n`);
    if (settings.html !== undefined) writeFileSync(settings.html, ratiosPage(report));
    print(report, settings.json);
    return 0;
  } catch (error) {
    console.error(signal.aborted ? 'interrupted' : (error as Error).message);
    return signal.aborted ? 130 : 1;
  }
}

async function run(settings: Settings, command: string, signal: AbortSignal): Promise<PeersReport> {
  const { isQuick, python, rounds, folder } = settings;
  const started = { date: new Date().toISOString(), loadAverage: os.loadavg()[0]! };
  const { begun } = await measureLimits(settings.threads, 1, signal);
  const sizes: Sizes = { ...settings.sizes, threads: begun.threads };
  const absent = absentees(settings);
  const contestants = settings.contestants.filter((one) => absent[nameOf(one)] === undefined);
  const say = (text: string) => console.error(text);
  for (const [name, why] of Object.entries(absent)) say(`${name} left out: ${why}`);
  const { played, looks, loading } = await withFiles(contestants, sizes, { folder, signal, say }, (paths) =>
    playRounds(contestants, paths, { sizes, rounds, python, isQuick, signal, say }),
  );
  const limits = limitLines(looks);
  const machine = {
    ...{ cpu: begun.cpu, simd: begun.simd },
    instructions: limits.map(({ name }) => name),
  };
  return {
    ...{ schema: 'openlora-peers/1', bench: 'peers', command, isQuick, ...started },
    versions: { openlora: packageVersion(), node: process.version },
    machine: {
      ...{ cpu: begun.cpu, threads: begun.threads, simd: begun.simd, lastLevelCacheBytes: begun.cacheBytes },
      ...{ memoryBytes: os.totalmem(), platform: `${process.platform} ${process.arch}` },
    },
    sizes: shownSizes(sizes, rounds),
    limits,
    ratios: ratiosOf(played, sizes, machine, isQuick),
    lines: [...linesOf(played, sizes), ...loading],
    facts: factsOf(played, sizes),
    tensors: tensorsOf(played, sizes),
    absent,
  };
}

/** Those that can't take part, and why. */
function absentees({ contestants, python, sizes }: Settings): Record<string, string> {
  const why = (): string | undefined => {
    if (sizes.adapters === 0) return 'it is measured with adapters alone';
    if (python === undefined) return 'no --python was given';
    return existsSync(python) ? undefined : `${python} does not exist`;
  };
  const reason = why();
  const found = contestants.filter(({ engine }) => engine === 'peft' && reason !== undefined);
  return Object.fromEntries(found.map((one) => [nameOf(one), reason!]));
}

function limitLines(looks: readonly MeasuredLimits[]): Line[] {
  return looks[0]!.limits.map(({ name, unit }) => {
    const all = looks.flatMap(({ limits }) => limits.filter((limit) => limit.name === name));
    return {
      ...{ name, unit: unit === 'GB/s' ? ('GB/s' as const) : ('GOP/s' as const), better: 'higher' as const },
      ...summary(all.map(({ median }) => median)),
      median: medianOf(all.map(({ median }) => median)),
    };
  });
}

function shownSizes(sizes: Sizes, rounds: number): Record<string, string | number> {
  const { batches, ...rest } = sizes;
  return { ...rest, batches: batches.join(','), rounds };
}

function factsOf(played: Rounds['played'], { model }: Sizes): Facts {
  const types = ({ engine, format }: Contestant): Record<string, string> =>
    engine === 'llama.cpp' ? { tensors: typesOf(namedShape(model), format as GgufFormat) } : {};
  return Object.fromEntries(played.map((one) => [nameOf(one), { ...one.facts, ...types(one) }]));
}

function tensorsOf(played: Rounds['played'], { model }: Sizes): PeersReport['tensors'] {
  const formats = played.filter(({ engine }) => engine === 'llama.cpp').map(({ format }) => format as GgufFormat);
  const types = (format: GgufFormat) => modelTensors(namedShape(model), format).map(({ name, type }) => [name, type]);
  return Object.fromEntries(
    formats.map((format) => [format, Object.fromEntries(types(format)) as Record<string, TensorType>]),
  );
}

function print(report: PeersReport, json: string): void {
  const out = new Output(process.stdout, process.env);
  const { style } = out;
  const to = { style, line: (text: string = '') => out.line(text) };
  to.line(style.dim(headOf(report)));
  to.line(style.dim(sizesOf(report)));
  for (const text of factLines(report.facts)) to.line(style.dim(text));
  to.line();
  printLines([...report.limits, ...report.lines], to);
  to.line();
  printRatios(report.ratios, to);
  to.line();
  if (report.isQuick) to.line('A quick run: it shows that the bench works, and says nothing about speed.');
  for (const [name, why] of Object.entries(report.absent)) to.line(`${name} left out: ${why}`);
  to.line(style.dim(`written to ${json}`));
}
