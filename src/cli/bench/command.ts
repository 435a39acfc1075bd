// `openlora bench`: what this machine gives, and how near to it openlora comes.

import { accessSync, constants, writeFileSync } from 'node:fs';
import * as os from 'node:os';
import { dirname, resolve } from 'node:path';
import { packageVersion } from '../../native/package-root.js';
import { defineCommand } from '../command.js';
import { EXIT_OK } from '../errors.js';
import { quoted } from '../hints.js';
import { json, type Io } from '../io.js';
import { compareReports, printComparison } from './compare.js';
import { benchMachine, benchOps, type Measured } from './machine.js';
import { comparisonPage, reportPage } from './page.js';
import { BENCHES, readReport, SCHEMA, type BenchName, type BenchReport, type Line } from './report.js';
import {
  adaptersSettings,
  BENCH_OPTIONS,
  checkApplies,
  checkCompares,
  checkDevice,
  modelSettings,
  type BenchValues,
} from './settings.js';
import { formatNumber, printReport, StatusLine } from './view.js';

export const bench = defineCommand({
  name: 'bench',
  summary: "measure speed beside this machine's limits, compare and plot the results",
  usage: `${BENCHES.join('|')} [options] | --compare A.json B.json`,
  details:
    'machine: what the machine gives: reading memory, each instruction that kernels use. ops: the cases of the test suite at the sizes of a model, each checked against the reference. decode and prefill: whole models with random weights, on the base alone and with distinct adapters. adapters: thousands of them registered, few of which fit. With --device cuda:0, machine and ops measure that GPU. Limits are measured between the repeats of each line: on a shared machine only fractions of what was there at the time mean anything.',
  positionals: [{ name: 'BENCH', choices: BENCHES }],
  positionalsOf: { option: 'compare', positionals: [{ name: 'B.json', path: 'file' }] },
  options: BENCH_OPTIONS,
  examples: [
    'openlora bench machine',
    "openlora bench ops --filter 'rows 32' --json > ops.json",
    'openlora bench decode --batch 1,8 --adapters 8 --rank 16 --html decode.html',
    'openlora bench prefill --model tinyllama --dtype f32',
    'openlora bench adapters --registered 1000 --folder ~/bench --html adapters.html',
    'openlora bench --compare before.json after.json',
  ],
  async run({ options, positionals, io }) {
    // Before minutes of measuring, not after them.
    if (options.html !== undefined) accessSync(dirname(resolve(options.html)), constants.W_OK);
    if (options.compare !== undefined) return compare(options, options.compare, positionals[0]!, io);
    const name = positionals[0] as BenchName;
    checkApplies(name, options);
    const began = { date: new Date().toISOString(), loadAverage: os.loadavg()[0]! };
    const status = new StatusLine(io.stderr);
    const onLine = ({ name: done, median, unit }: Line) => status.update(`${done}: ${formatNumber(median)} ${unit}`);
    let measured: Measured;
    try {
      status.update(`measuring ${name} …`);
      measured = await runBench(name, options, io, onLine);
    } finally {
      status.clear();
    }
    const report = makeReport(name, options, measured, began);
    if (options.html !== undefined) writeFileSync(options.html, reportPage(report));
    if (options.json) json(io, report);
    else printReport(report, io.stdout);
    return EXIT_OK;
  },
});

async function runBench(name: BenchName, values: BenchValues, io: Io, onLine: (line: Line) => void): Promise<Measured> {
  const { device = 'cpu', threads = 0, simd = 'auto', quick: isQuick, filter = '' } = values;
  if (name === 'machine' || name === 'ops') checkDevice(values);
  if (name === 'machine') return benchMachine({ device, threads, simd, isQuick, filter }, io.signal, onLine);
  if (name === 'ops') return benchOps({ device, threads, simd, isQuick, filter }, io.signal, onLine);
  if (name === 'adapters') {
    const { benchAdapters } = await import('./adapters.js');
    return benchAdapters(adaptersSettings(values), io, onLine);
  }
  const settings = modelSettings(name, values);
  const { benchModel } = await import('./model.js');
  return benchModel(settings, io, onLine);
}

function makeReport(
  name: BenchName,
  values: BenchValues,
  { begun, sizes, lines }: Measured,
  { date, loadAverage }: { date: string; loadAverage: number },
): BenchReport {
  return {
    schema: SCHEMA,
    bench: name,
    command: commandOf(name, values),
    date,
    versions: { openlora: packageVersion(), node: process.version },
    loadAverage,
    isQuick: values.quick,
    machine: {
      cpu: begun.cpu,
      threads: begun.threads,
      simd: begun.simd,
      lastLevelCacheBytes: begun.cacheBytes,
      memoryBytes: os.totalmem(),
      platform: `${process.platform} ${process.arch}`,
    },
    sizes,
    lines,
  };
}

/** What was asked for, without where the results go. */
function commandOf(name: BenchName, values: BenchValues): string {
  const words = Object.entries(values).flatMap(([option, value]) => {
    if (value === undefined || value === false || option === 'html' || !(option in BENCH_OPTIONS)) return [];
    return value === true ? [`--${option}`] : [`--${option}`, quoted(String(value))];
  });
  return ['openlora', 'bench', name, ...words].join(' ');
}

function compare(values: BenchValues & { json: boolean }, before: string, after: string, io: Io): number {
  checkCompares(values);
  const comparison = compareReports(readReport(before), readReport(after), values.force);
  if (values.html !== undefined) writeFileSync(values.html, comparisonPage(comparison));
  if (values.json) json(io, comparison);
  else printComparison(comparison, io.stdout);
  return EXIT_OK;
}
