// Speed of the real tokenizers: loading, encoding, decoding, memory. Each runs in a process of its own.
//
//   node bench/tokenizers.mjs [--json] [--quick] [NAME …]
//
// Texts are this repository's own (docs as prose, src as code) and the test corpus (many scripts), about 1 MB each
// (--quick: 20 kB), cut into requests of 4 kB; a run encodes each request once, and the median of 3 runs counts. `cpu` is of the process's own
// processor time, all threads together: on a shared machine it says more than the clock.

import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { availableParallelism, cpus, loadavg } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { build } from 'esbuild';
import { TOKENIZERS, prepare } from '../test/tokenizer/real/prepare.mjs';

const root = fileURLToPath(new URL('../', import.meta.url));
const self = fileURLToPath(import.meta.url);
const REQUEST_LENGTH = 4096;
const RUNS = 3;

function filesIn(folder, ending) {
  return readdirSync(join(root, folder), { recursive: true })
    .filter((name) => name.endsWith(ending))
    .map((name) => readFileSync(join(root, folder, name), 'utf8'));
}

/** Requests of each kind, `length` characters in all. */
function requestsOf(length) {
  const corpus = JSON.parse(readFileSync(join(root, 'test/tokenizer/real/corpus.json'), 'utf8'));
  const texts = {
    prose: [...filesIn('docs', '.md'), readFileSync(join(root, 'README.md'), 'utf8')].join('\n'),
    code: filesIn('src', '.ts').join('\n'),
    scripts: corpus.texts.join(' '),
    repeats: corpus.repeats.map(([text, times]) => text.repeat(times)).join(' '),
  };
  const cut = (text) => {
    const whole = text.repeat(Math.ceil(length / text.length)).slice(0, length);
    const count = Math.ceil(length / REQUEST_LENGTH);
    return Array.from({ length: count }, (_, i) =>
      whole.slice(i * REQUEST_LENGTH, (i + 1) * REQUEST_LENGTH).toWellFormed(),
    );
  };
  return Object.fromEntries(Object.entries(texts).map(([kind, text]) => [kind, cut(text)]));
}

const median = (values) => [...values].sort((a, b) => a - b)[values.length >> 1];
const round = (value) => Number(value.toPrecision(3));

async function megabytesPerSecond(requests, run) {
  const bytes = requests.reduce((sum, text) => sum + Buffer.byteLength(text), 0);
  const seconds = [];
  const cpuSeconds = [];
  for (let i = 0; i < RUNS; i++) {
    const lap = stopwatch();
    for (const request of requests) await run(request);
    const { clock, cpu } = lap();
    seconds.push(clock);
    cpuSeconds.push(cpu);
  }
  return { clock: round(bytes / 1e6 / median(seconds)), cpu: round(bytes / 1e6 / median(cpuSeconds)) };
}

/** Seconds since it was made. */
function stopwatch() {
  const start = performance.now();
  const before = process.cpuUsage();
  return () => {
    const { user, system } = process.cpuUsage(before);
    return { clock: round((performance.now() - start) / 1000), cpu: round((user + system) / 1e6) };
  };
}

/** In the process of one tokenizer. */
async function measure(folder, bundle, length) {
  const { openTokenizer } = await import(pathToFileURL(join(bundle, 'tokenizer.js')).href);
  const before = process.memoryUsage.rss();
  const lap = stopwatch();
  const tokenizer = await openTokenizer({ folder });
  const result = { loadSeconds: lap() };
  await new Promise((resolve) => setTimeout(resolve, 500));
  result.rssGrowthMiB = Math.round((process.memoryUsage.rss() - before) / 2 ** 20);
  result.rssHighestGrowthMiB = Math.round((process.resourceUsage().maxRSS * 1024 - before) / 2 ** 20);
  result.encodeMBs = {};
  const requests = requestsOf(length);
  for (const [kind, texts] of Object.entries(requests)) {
    result.encodeMBs[kind] = await megabytesPerSecond(texts, (text) => tokenizer.encode(text));
  }
  const ids = new Map();
  for (const text of requests.prose) ids.set(text, await tokenizer.encode(text));
  result.decodeMBs = await megabytesPerSecond(requests.prose, (text) => tokenizer.decode(ids.get(text)));
  const tokens = [...ids.values()].reduce((sum, one) => sum + one.length, 0);
  result.tokensPerKB = round(tokens / (requests.prose.reduce((sum, text) => sum + Buffer.byteLength(text), 0) / 1000));
  await tokenizer.dispose();
  return result;
}

async function main() {
  const flags = process.argv.slice(2);
  const isQuick = flags.includes('--quick');
  const named = flags.filter((flag) => !flag.startsWith('--'));
  const scratch = join(root, `.cache/bench-tokenizers-${process.pid}`);
  mkdirSync(scratch, { recursive: true });
  try {
    await build({
      entryPoints: ['tokenizer', 'tokenizer-worker'].map((name) => join(root, `src/formats/${name}.ts`)),
      outdir: scratch,
      bundle: true,
      platform: 'node',
      format: 'esm',
      target: 'node20',
      packages: 'external',
    });
    const folder = join(scratch, 'folders');
    await prepare(folder);
    const length = isQuick ? 20_000 : 1_000_000;
    const tokenizers = {};
    for (const name of named.length > 0 ? named : TOKENIZERS) {
      const args = [self, '--measure', join(folder, name), scratch, String(length)];
      const { stdout, stderr, status } = spawnSync(process.execPath, args, { encoding: 'utf8' });
      if (status !== 0) throw new Error(`${name}: ${stderr}`);
      tokenizers[name] = JSON.parse(stdout);
      if (!flags.includes('--json')) console.log(name.padEnd(10), JSON.stringify(tokenizers[name]));
    }
    const cpu = cpus()[0]?.model ?? 'unknown';
    const machine = { cpu, threads: availableParallelism(), node: process.version, loadAverage: round(loadavg()[0]) };
    const revision = execFileSync('git', ['rev-parse', 'HEAD'], { cwd: root, encoding: 'utf8' }).trim();
    const sizes = { charactersPerKind: length, charactersPerRequest: REQUEST_LENGTH, runs: RUNS };
    const command = `node bench/tokenizers.mjs ${flags.join(' ')}`.trim();
    const report = { machine, date: new Date().toISOString().slice(0, 10), revision, command, sizes, tokenizers };
    if (flags.includes('--json')) console.log(JSON.stringify(report, null, 2));
  } finally {
    rmSync(scratch, { recursive: true });
  }
}

if (process.argv[2] === '--measure') {
  const [folder, bundle, length] = process.argv.slice(3);
  console.log(JSON.stringify(await measure(folder, bundle, Number(length))));
} else {
  await main();
}
