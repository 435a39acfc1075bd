// The table of ratios of bench/peers: who is compared with whom, what is asked, and when a row isn't judged.

import { describe, expect, it } from 'vitest';
import { goalOf } from '../../bench/peers/goals.js';
import { incomparable, linesOf, ratiosOf, type MachineFacts, type Played } from '../../bench/peers/ratios.js';
import type { Contestant, OurFormat, Row, Sample } from '../../bench/peers/work.js';

const INFO =
  'CPU : SSE3 = 1 | AVX = 1 | AVX2 = 1 | F16C = 1 | FMA = 1 | AVX512 = 1 | AVX512_VNNI = 1 | AVX512_BF16 = 1 |';
const SIZES = { context: 64, tokens: 32 };
const INTEL: MachineFacts = { cpu: 'Intel Xeon', simd: 'avx512-vnni', instructions: ['read', 'int8 dot'] };
const ZEN: MachineFacts = { ...INTEL, cpu: 'AMD EPYC', instructions: ['read', 'bf16 dot', 'int8 dot'] };

type Speeds = Readonly<Record<string, number | number[]>>;

/** Five rounds of these speeds; a number is that of each round. */
function played(
  engine: Contestant['engine'],
  format: Contestant['format'],
  speeds: Speeds,
  extra?: Partial<Sample>,
): Played {
  const rounds = Array.from({ length: 5 }, (_, round) =>
    Object.entries(speeds).map(([row, speed]): Sample => ({
      row: row as Row,
      tokensPerSecond: Array.isArray(speed) ? speed[round]! : speed,
      ...extra,
    })),
  );
  const facts: Played['facts'] = engine === 'llama.cpp' ? { 'system info': INFO } : {};
  return { engine, format, rounds, facts, readGbs: [19, 20, 21] };
}

const ratios = (all: Played[], machine = INTEL, isQuick = false) => ratiosOf(all, SIZES, machine, isQuick);
const only = (all: Played[], machine = INTEL, isQuick = false) => {
  const found = ratios(all, machine, isQuick);
  expect(found.length).toBe(1);
  return found[0]!;
};

describe('a row', () => {
  it('is ours over the fastest peer, by medians, with the spread of the rounds', () => {
    const ratio = only([
      played('openlora', 'int8', { 'decode/8': [100, 110, 90, 300, 105] }),
      played('llama.cpp', 'f16', { 'decode/8': 30 }),
      played('llama.cpp', 'bf16', { 'decode/8': [40, 50, 40, 40, 20] }),
      played('llama.cpp', 'q8_0', { 'decode/8': 10 }),
      played('llama.cpp', 'q4_0', { 'decode/8': 1000 }),
    ]);
    expect(ratio.title).toBe('decode, batch 8, context 64');
    expect(ratio.ours).toEqual({ name: 'openlora int8', median: 105, low: 90, high: 300, samples: 5 });
    expect(ratio.peer).toEqual({ name: 'llama.cpp bf16', median: 40, low: 20, high: 50, samples: 5 });
    expect(ratio.ratio).toEqual({ median: 105 / 40, low: 2.2, high: 7.5, samples: 5 });
    expect(ratio.goal).toBe(2.5);
    expect(ratio.verdict).toBe('met');
  });

  it('at its goal is met, and just below is missed', () => {
    const at = (speed: number) =>
      only([played('openlora', 'int8', { 'decode/1': speed }), played('llama.cpp', 'q8_0', { 'decode/1': 10 })]);
    expect(at(13).verdict).toBe('met');
    expect(at(12.99).verdict).toBe('missed');
  });

  it('takes the better of the ways in which a peer serves several adapters', () => {
    const slow = played('llama.cpp', 'q8_0', { 'adapters/8': 2 }, { way: 'one after another' });
    const fast = played('llama.cpp', 'q8_0', { 'adapters/8': 3 }, { way: 'one context each' });
    const peer = { ...slow, rounds: slow.rounds.map((round, i) => [...round, ...fast.rounds[i]!]) };
    const ratio = only([played('openlora', 'int8', { 'adapters/8': 24 }, { way: 'in one batch' }), peer]);
    expect(ratio.peer).toMatchObject({ name: 'llama.cpp q8_0', way: 'one context each', median: 3, samples: 5 });
    expect(ratio.ratio.median).toBe(8);
    expect(ratio.verdict).toBe('met');
    expect(ratio.title).toBe('8 requests, 8 adapters, 64 + 32 tokens');
  });

  it('with adapters stands beside peft too, which nothing is asked of', () => {
    const found = ratios([
      played('openlora', 'bf16', { 'adapters/8': 24 }),
      played('llama.cpp', 'f16', { 'adapters/8': 4 }),
      played('llama.cpp', 'bf16', { 'adapters/8': 2 }),
      played('peft', 'bf16', { 'adapters/8': 1 }),
      played('peft', 'f32', { 'adapters/8': 100 }),
    ]);
    expect(found.map(({ peer, verdict, ratio }) => [peer.name, ratio.median, verdict])).toEqual([
      ['llama.cpp f16', 6, 'missed'],
      ['peft bf16', 24, ''],
    ]);
  });

  it('without a peer is left out', () => {
    expect(ratios([played('openlora', 'int8', { 'decode/1': 1 })])).toEqual([]);
  });
});

describe('the share of the read bandwidth', () => {
  const one = (format: OurFormat, bytes: number) =>
    only([
      played('openlora', format, { 'decode/1': 12 }, { bytes }),
      played('llama.cpp', format === 'int8' ? 'q8_0' : 'q4_0', { 'decode/1': 10 }),
    ]);

  it('counts where the machine allows no more', () => {
    // 12 steps/s × 1.5 GB of 20 GB/s.
    expect(one('int8', 1.5e9)).toMatchObject({ verdict: 'met by the share', share: 0.9, shareGoal: 0.9 });
    expect(one('int8', 1.49e9).verdict).toBe('missed');
    expect(one('int4', 1.42e9).verdict).toBe('met by the share');
    expect(one('int4', 1.41e9).verdict).toBe('missed');
  });

  it('is of steps, each of which makes a token for every request', () => {
    const batch = (bytes: number) =>
      only([
        played('openlora', 'int8', { 'decode/8': 12 }, { bytes }),
        ...(['f16', 'bf16', 'q8_0'] as const).map((format) => played('llama.cpp', format, { 'decode/8': 10 })),
      ]);
    expect(batch(12e9)).toMatchObject({ share: 0.9, verdict: 'met by the share' });
    expect(batch(11.9e9).verdict).toBe('missed');
  });

  it('is unknown of rows that say nothing about bytes', () => {
    const ratio = only([
      played('openlora', 'int8', { 'decode/1': 12 }),
      played('llama.cpp', 'q8_0', { 'decode/1': 10 }),
    ]);
    expect(ratio.share).toBeUndefined();
    expect(ratio.shareGoal).toBeUndefined();
    expect(ratio.verdict).toBe('missed');
  });
});

describe('a row is not judged', () => {
  const pair = (speed = 100) => [
    played('openlora', 'int8', { 'decode/1': speed }),
    played('llama.cpp', 'q8_0', { 'decode/1': 1 }),
  ];

  it('in a quick run', () => {
    expect(only(pair(), INTEL, true).verdict).toBe('not judged');
  });

  it('of fewer than five rounds', () => {
    const few = pair().map((one) => ({ ...one, rounds: one.rounds.slice(1) }));
    expect(only(few)).toMatchObject({ verdict: 'not judged', reason: '4 of 5 rounds' });
  });

  it('where a peer that the goal names was not measured', () => {
    const ratio = only([
      played('openlora', 'int8', { 'decode/32': 100 }),
      played('llama.cpp', 'q8_0', { 'decode/32': 1 }),
      played('llama.cpp', 'bf16', { 'decode/32': 1 }),
    ]);
    expect(ratio).toMatchObject({ verdict: 'not judged', reason: 'llama.cpp f16 not measured' });
  });

  it('where the peer was built without an instruction that openlora uses: not comparable, however fast', () => {
    const [ours, peer] = pair() as [Played, Played];
    const old = { ...peer, facts: { 'system info': INFO.replace('AVX512_VNNI = 1', 'AVX512_VNNI = 0') } };
    expect(only([ours, old])).toMatchObject({
      verdict: 'not comparable',
      reason: "the peer's build lacks AVX512_VNNI",
      goal: 1.3,
    });
  });
});

describe('what makes a peer incomparable', () => {
  const llama = (info: string) => ({ engine: 'llama.cpp', facts: { 'system info': info } }) as const;

  it('is each instruction of the level that openlora computes with', () => {
    expect(incomparable('bf16', llama(INFO), 'avx512-vnni')).toBeUndefined();
    expect(incomparable('bf16', llama(INFO.replace(' AVX512_VNNI = 1 |', '')), 'avx512-vnni')).toBeUndefined();
    expect(incomparable('int4', llama(INFO.replace(' AVX512_VNNI = 1 |', '')), 'avx512-vnni')).toBeDefined();
    expect(incomparable('f32', llama('CPU : AVX2 = 1 | FMA = 1 | F16C = 1 |'), 'avx512')).toBe(
      "the peer's build lacks AVX512",
    );
    expect(incomparable('f32', llama('CPU : AVX2 = 1 | FMA = 1 | F16C = 1 |'), 'avx2')).toBeUndefined();
    expect(incomparable('int8', llama('CPU : NEON = 1 |'), 'neon-dotprod')).toBe("the peer's build lacks DOTPROD");
    expect(incomparable('int8', llama(''), 'avx2')).toBe("the peer's build lacks AVX2, FMA, F16C");
  });

  it('is AMX, for int8 and int4', () => {
    expect(incomparable('int8', llama(`${INFO} AMX_INT8 = 1 |`), 'avx512-vnni')).toContain('AMX');
    expect(incomparable('bf16', llama(`${INFO} AMX_INT8 = 1 |`), 'avx512-vnni')).toBeUndefined();
  });

  it("is never a peer's without such flags, nor a level that this table doesn't know", () => {
    expect(incomparable('bf16', { engine: 'peft', facts: {} }, 'avx512')).toBeUndefined();
    expect(incomparable('bf16', llama(INFO), 'scalar')).toBe('openlora computes without SIMD');
  });
});

describe('the goals of issue 6', () => {
  const table = (format: OurFormat, machine: MachineFacts) =>
    Object.fromEntries(
      (['decode/1', 'decode/4', 'decode/8', 'decode/32', 'decode/64', 'prefill/512', 'adapters/8'] as const).map(
        (row) => [row, goalOf(format, row, 64, machine === ZEN).ratio],
      ),
    );

  it.each([
    ['int8', INTEL, [1.3, undefined, 2.5, 2.5, undefined, 4, 8]],
    ['int4', INTEL, [1.3, undefined, 2.5, 2.5, undefined, 2.4, 8]],
    ['bf16', INTEL, [1, undefined, 1.3, 1.3, undefined, 1.3, 8]],
    ['bf16', ZEN, Array(7).fill(undefined)],
    ['bf16-dot', ZEN, [1, undefined, 1.4, 1.4, undefined, 1.4, 8]],
    ['bf16-dot', INTEL, Array(7).fill(undefined)],
    ['int8', ZEN, [1.3, undefined, 2.5, 2.5, undefined, 4, 8]],
    ['f32', INTEL, Array(7).fill(undefined)],
  ] as const)('%s', (format, machine, wanted) => {
    expect(Object.values(table(format, machine))).toEqual([...wanted]);
  });

  it('are those of context 64, prompts of 512 and eight adapters', () => {
    expect(goalOf('int8', 'decode/8', 1024, false).ratio).toBeUndefined();
    expect(goalOf('int8', 'prefill/64', 64, false).ratio).toBeUndefined();
    expect(goalOf('int8', 'adapters/4', 64, false).ratio).toBeUndefined();
  });

  it('a Zen is told by its bf16 dot products', () => {
    const all = (format: 'bf16' | 'bf16-dot') => [
      played('openlora', format, { 'prefill/512': 135 }),
      played('llama.cpp', 'f16', { 'prefill/512': 100 }),
      played('llama.cpp', 'bf16', { 'prefill/512': 100 }),
    ];
    const withoutDots = { ...ZEN, instructions: ['read'] };
    expect(only(all('bf16-dot'), ZEN)).toMatchObject({ goal: 1.4, verdict: 'missed' });
    expect(only(all('bf16'), ZEN)).toMatchObject({ verdict: '' });
    expect(only(all('bf16'), withoutDots)).toMatchObject({ goal: 1.3, verdict: 'met' });
  });
});

it('lines are medians of the rounds, by contestant and way', () => {
  const lines = linesOf([played('peft', 'f32', { 'adapters/2': [1, 2, 3, 4, 5] }, { way: 'mixed' })], SIZES);
  expect(lines).toEqual([
    {
      name: '2 requests, 2 adapters, 64 + 32 tokens, peft f32, mixed',
      ...{ unit: 'tokens/s', better: 'higher', median: 3, low: 1, high: 5, samples: 5 },
    },
  ]);
});
