// Rounds in which every contestant runs once, in a process of its own, one at a time, with the machine's limits measured
// before each and at the end.

import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { measureLimits, type MeasuredLimits } from '../../src/cli/bench/native.js';
import { summary, type Line } from '../../src/cli/bench/report.js';
import type { Paths } from './files.js';
import type { Played } from './ratios.js';
import { nameOf, type Answer, type Contestant, type Sizes, type Work } from './work.js';

const LIMIT_ROUNDS = 3;

export interface RoundOptions {
  sizes: Sizes;
  rounds: number;
  /** Only if peft takes part. */
  python: string | undefined;
  isQuick: boolean;
  signal: AbortSignal;
  say: (text: string) => void;
}

export interface Rounds {
  played: Played[];
  looks: MeasuredLimits[];
  /** Medians of each process. */
  loading: Line[];
}

/** Throws what a process said on stderr if it failed. */
export async function playRounds(
  contestants: readonly Contestant[],
  paths: Paths,
  { sizes, rounds, python, isQuick, signal, say }: RoundOptions,
): Promise<Rounds> {
  const played: Played[] = contestants.map((contestant) => ({ ...contestant, rounds: [], facts: {}, readGbs: [] }));
  const answers = new Map<Played, Answer[]>(played.map((one) => [one, []]));
  const looks: MeasuredLimits[] = [];
  /** The read bandwidth counts for the processes before and after. */
  const look = async (...beside: (Played | undefined)[]) => {
    const found = await measureLimits(sizes.threads, isQuick ? 1 : LIMIT_ROUNDS, signal);
    looks.push(found);
    for (const one of beside) one?.readGbs.push(found.limits.find(({ name }) => name === 'read')!.median);
  };
  let previous: Played | undefined;
  for (let round = 0; round < rounds; round++) {
    // Whoever was first is last in the next round.
    for (const one of round % 2 === 0 ? played : [...played].reverse()) {
      await look(previous, one);
      previous = one;
      say(`round ${round + 1} of ${rounds}: ${nameOf(one)}`);
      const work: Work = { engine: one.engine, format: one.format, sizes: sizesFor(one, sizes), ...paths(one) };
      const answered = await runChild(work, python, signal);
      one.rounds.push(answered.samples);
      one.facts = answered.facts;
      answers.get(one)!.push(answered);
    }
  }
  await look(previous);
  return { played, looks, loading: [...answers].flatMap(([one, all]) => loadingLines(one, all)) };
}

/** peft is there for mixed adapters alone. */
function sizesFor({ engine }: Contestant, sizes: Sizes): Sizes {
  return engine === 'peft' ? { ...sizes, batches: [], prompt: 0 } : sizes;
}

function loadingLines(one: Contestant, answers: readonly Answer[]): Line[] {
  const line = (what: string, unit: 'ms' | 'MiB', values: number[]): Line => ({
    ...{ name: `${what}, ${nameOf(one)}`, unit, better: 'lower' },
    ...summary(values),
  });
  return [
    line(
      'load',
      'ms',
      answers.map(({ loadMs }) => loadMs),
    ),
    line(
      'peak RSS',
      'MiB',
      answers.map(({ peakRssMib }) => peakRssMib),
    ),
  ];
}

const LOG_MAX = 4000;

async function runChild(work: Work, python: string | undefined, signal: AbortSignal): Promise<Answer> {
  const [command, script] =
    work.engine === 'peft' ? [python!, 'peft_peer.py'] : [process.execPath, `${work.engine}.js`];
  const path = fileURLToPath(new URL(script, import.meta.url));
  const env = {
    ...process.env,
    // A thread of libuv's pool waits in each context's llama_decode.
    UV_THREADPOOL_SIZE: String(work.sizes.adapters + 4),
    // Nothing is looked up on a network.
    HF_HUB_OFFLINE: '1',
    OMP_NUM_THREADS: String(work.sizes.threads),
  };
  const child = spawn(command, [path, JSON.stringify(work)], { env, signal, stdio: ['ignore', 'pipe', 'pipe'] });
  let [out, log] = ['', ''];
  child.stdout.on('data', (data: Buffer) => (out += data.toString()));
  child.stderr.on('data', (data: Buffer) => (log = (log + data.toString()).slice(-LOG_MAX)));
  const code = await new Promise<number | null>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (status) => resolve(status));
  });
  const last = out.trimEnd().split('\n').at(-1) ?? '';
  if (code !== 0 || !last.startsWith('{')) throw new Error(`${nameOf(work)} ended with ${code}:\n${log}${out}`);
  return JSON.parse(last) as Answer;
}
