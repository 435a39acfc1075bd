// The table of ratios: openlora over the fastest of the peers that a row is measured beside, and what is asked of it.

import { medianOf, summary, type Line } from '../../src/cli/bench/report.js';
import { goalOf, peftGoal, type Goal } from './goals.js';
import { nameOf, titleOf, type Contestant, type OurFormat, type Row, type Sample, type Sizes } from './work.js';

/** What one contestant did: `rounds[i]` are the samples of its process of round i. */
export interface Played extends Contestant {
  rounds: Sample[][];
  facts: Record<string, string | number>;
  /** The machine's read bandwidth before and after each of its processes. */
  readGbs: number[];
}

export interface MachineFacts {
  cpu: string;
  /** The level that openlora computes with. */
  simd: string;
  /** `bf16 dot` and so on: the instructions that the processor has. */
  instructions: readonly string[];
}

export type Verdict = 'met' | 'met by the share' | 'missed' | 'not comparable' | 'not judged' | '';
/** Of which the medians are judged. */
const ROUNDS_MIN = 5;

type Speed = Pick<Line, 'median' | 'low' | 'high' | 'samples'>;

export interface Ratio {
  row: Row;
  title: string;
  ours: { name: string } & Speed;
  /** The fastest, and how it served a row with adapters. */
  peer: { name: string; way?: string } & Speed;
  /** Of the medians; low and high are the least and the most of one round's. */
  ratio: Speed;
  goal?: number;
  /** Of the read bandwidth, while decoding. */
  share?: number;
  shareGoal?: number;
  verdict: Verdict;
  /** Why it isn't comparable or judged. */
  reason?: string;
}

/** Flags of llama.cpp's system info that a build must have to compute with what openlora's level computes with. */
const NEEDED: Readonly<Record<string, { all: readonly string[]; quantised: readonly string[] }>> = {
  avx2: { all: ['AVX2', 'FMA', 'F16C'], quantised: [] },
  avx512: { all: ['AVX512', 'FMA', 'F16C'], quantised: [] },
  'avx512-vnni': { all: ['AVX512', 'FMA', 'F16C'], quantised: ['AVX512_VNNI'] },
  neon: { all: ['NEON'], quantised: [] },
  'neon-dotprod': { all: ['NEON'], quantised: ['DOTPROD'] },
};

/** Why a row says nothing about the engines; undefined if it does. */
export function incomparable(
  format: OurFormat,
  peer: Pick<Played, 'engine' | 'facts'>,
  simd: string,
): string | undefined {
  if (peer.engine !== 'llama.cpp') return undefined;
  const info = String(peer.facts['system info'] ?? '');
  const flags = new Set([...info.matchAll(/(\w+) = 1\b/g)].map((match) => match[1]!));
  const isQuantised = format === 'int8' || format === 'int4';
  if (isQuantised && flags.has('AMX_INT8')) return 'the peer computes on AMX tiles, openlora does not';
  const needed = NEEDED[simd];
  if (!needed) return simd === 'scalar' ? 'openlora computes without SIMD' : undefined;
  const missing = [...needed.all, ...(isQuantised ? needed.quantised : [])].filter((flag) => !flags.has(flag));
  return missing.length > 0 ? `the peer's build lacks ${missing.join(', ')}` : undefined;
}

/** The samples of a row by round; of several ways to serve it, that with the larger median. */
function samplesOf({ rounds }: Played, row: Row): { values: number[]; way?: string; bytes?: number } | undefined {
  const found = rounds.flat().filter((sample) => sample.row === row);
  const ways = [...new Set(found.map(({ way }) => way))].map((way) => {
    const some = found.filter((sample) => sample.way === way);
    const bytes = some.flatMap((sample) => sample.bytes ?? []);
    return {
      values: some.map(({ tokensPerSecond }) => tokensPerSecond),
      ...(way === undefined ? {} : { way }),
      ...(bytes.length > 0 ? { bytes: medianOf(bytes) } : {}),
    };
  });
  return ways.sort((a, b) => medianOf(b.values) - medianOf(a.values))[0];
}

export function ratiosOf(
  played: readonly Played[],
  sizes: Pick<Sizes, 'context' | 'tokens'>,
  machine: MachineFacts,
  isQuick: boolean,
): Ratio[] {
  const hasZenDots = machine.cpu.includes('AMD') && machine.instructions.includes('bf16 dot');
  const ours = played.filter(({ engine }) => engine === 'openlora');
  const rows = [...new Set(ours.flatMap(({ rounds }) => rounds.flat().map(({ row }) => row)))];
  return rows.flatMap((row) =>
    ours.flatMap((our) => {
      const format = our.format as OurFormat;
      const goals = [
        goalOf(format, row, sizes.context, hasZenDots),
        ...(row.startsWith('adapters') ? [peftGoal(format)] : []),
      ];
      return goals.flatMap((goal) => (goal && ratioOf(our, row, goal, played, sizes, machine, isQuick)) ?? []);
    }),
  );
}

function ratioOf(
  our: Played,
  row: Row,
  goal: Goal,
  played: readonly Played[],
  sizes: Pick<Sizes, 'context' | 'tokens'>,
  machine: MachineFacts,
  isQuick: boolean,
): Ratio | undefined {
  const mine = samplesOf(our, row);
  const peers = played
    .filter((one) => goal.peers.some(({ engine, format }) => engine === one.engine && format === one.format))
    .flatMap((peer) => {
      const found = samplesOf(peer, row);
      return found ? [{ peer, ...found }] : [];
    })
    .sort((a, b) => medianOf(b.values) - medianOf(a.values));
  const fastest = peers[0];
  if (!mine || !fastest) return undefined;
  const { low, high, samples } = summary(mine.values.map((value, i) => value / (fastest.values[i] ?? NaN)));
  const ratio = { median: medianOf(mine.values) / medianOf(fastest.values), low, high, samples };
  const share = mine.bytes === undefined ? undefined : readShare(row, mine.bytes, medianOf(mine.values), our.readGbs);
  const judged = judgement(our.format as OurFormat, goal, peers, machine.simd, Math.min(mine.values.length, samples));
  const verdict = isQuick && judged.verdict === undefined ? 'not judged' : judged.verdict;
  return {
    ...{ row, title: titleOf(row, sizes), ratio },
    ours: { name: nameOf(our), ...summary(mine.values) },
    peer: {
      name: nameOf(fastest.peer),
      ...(fastest.way === undefined ? {} : { way: fastest.way }),
      ...summary(fastest.values),
    },
    ...(goal.ratio === undefined ? {} : { goal: goal.ratio }),
    ...(share === undefined ? {} : { share }),
    ...(share === undefined || goal.share === undefined ? {} : { shareGoal: goal.share }),
    ...(judged.reason === undefined ? {} : { reason: judged.reason }),
    verdict: verdict ?? outcome(ratio.median, goal, share),
  };
}

/** Of what the machine can read meanwhile: a step reads `bytes` and makes a token for each request. */
function readShare(row: Row, bytes: number, tokensPerSecond: number, readGbs: readonly number[]): number {
  return (bytes * tokensPerSecond) / Number(row.split('/')[1]) / 1e9 / medianOf(readGbs);
}

/** What keeps a row from being judged by its numbers, if anything does. */
function judgement(
  format: OurFormat,
  goal: Goal,
  peers: readonly { peer: Played }[],
  simd: string,
  rounds: number,
): { verdict?: Verdict; reason?: string } {
  const reason = incomparable(format, peers[0]!.peer, simd);
  if (reason !== undefined) return { verdict: 'not comparable', reason };
  if (goal.ratio === undefined) return { verdict: '' };
  const names = new Set(peers.map(({ peer }) => nameOf(peer)));
  const absent = goal.peers.map(nameOf).filter((name) => !names.has(name));
  if (absent.length > 0) return { verdict: 'not judged', reason: `${absent.join(', ')} not measured` };
  if (rounds < ROUNDS_MIN) return { verdict: 'not judged', reason: `${rounds} of ${ROUNDS_MIN} rounds` };
  return {};
}

function outcome(ratio: number, goal: Goal, share: number | undefined): Verdict {
  if (ratio >= goal.ratio!) return 'met';
  return goal.share !== undefined && (share ?? 0) >= goal.share ? 'met by the share' : 'missed';
}

/** Each contestant's rows as lines of a bench report, in the order in which they were first measured. */
export function linesOf(played: readonly Played[], sizes: Pick<Sizes, 'context' | 'tokens'>): Line[] {
  return played.flatMap((one) => {
    const groups = new Map<string, number[]>();
    for (const { row, way, tokensPerSecond } of one.rounds.flat()) {
      const name = `${titleOf(row, sizes)}, ${nameOf(one)}${way === undefined ? '' : `, ${way}`}`;
      groups.set(name, [...(groups.get(name) ?? []), tokensPerSecond]);
    }
    return [...groups].map(([name, values]): Line => ({
      ...{ name, unit: 'tokens/s', better: 'higher' },
      ...summary(values),
    }));
  });
}
