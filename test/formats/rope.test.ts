import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { ConfigReader } from '../../src/formats/config-reader.js';
import { readRope } from '../../src/formats/rope.js';
import { expectCode } from './fixtures.js';

interface RopeCase {
  config: Record<string, unknown> & { hidden_size: number; num_attention_heads: number };
  invFreq: string;
  factor: number;
}
const golden = JSON.parse(readFileSync(new URL('golden/rope.golden.json', import.meta.url), 'utf8')) as {
  cases: RopeCase[];
};

function read(config: Record<string, unknown>, headDim = 128) {
  const context = (config.max_position_embeddings as number | undefined) ?? 2048;
  return readRope(new ConfigReader(config, 'config.json', 'ERR_BASE_CONFIG'), { headDim, context });
}

describe('rotary tables', () => {
  test.each(
    golden.cases.map((c) => [JSON.stringify(c.config.rope_scaling ?? c.config.rope_parameters ?? {}), c] as const),
  )('equal transformers for %s', (_, { config, invFreq, factor }) => {
    const headDim = (config.head_dim as number | undefined) ?? config.hidden_size / config.num_attention_heads;
    const table = read(config, headDim);
    const wanted = new Float32Array(new Uint8Array(Buffer.from(invFreq, 'hex')).buffer);
    expect(table.invFreq.length).toBe(wanted.length);
    // powf in torch is within one ulp, and so is Math.pow rounded to float32: two before the reciprocal; each later
    // rounding adds a half. An ulp is at most 2^-23 of the value.
    wanted.forEach((value, i) => expect(Math.abs(table.invFreq[i]! - value)).toBeLessThanOrEqual(value * 4 * 2 ** -23));
    expect(table.factor).toBeCloseTo(factor, 12);
  });

  test('are within an ulp of transformers in nine of ten frequencies', () => {
    let [same, all] = [0, 0];
    for (const { config, invFreq } of golden.cases) {
      const headDim = (config.head_dim as number | undefined) ?? config.hidden_size / config.num_attention_heads;
      const wanted = new Int32Array(new Uint8Array(Buffer.from(invFreq, 'hex')).buffer);
      const got = new Int32Array(read(config, headDim).invFreq.buffer);
      got.forEach((bits, i) => (same += Number(Math.abs(bits - wanted[i]!) <= 1)));
      all += got.length;
    }
    expect(same / all).toBeGreaterThan(0.9);
  });

  test('take the context of YaRN from its original length', () => {
    const scaling = { type: 'yarn', factor: 4, original_max_position_embeddings: 32768 };
    expect(read({ rope_scaling: scaling, max_position_embeddings: 32768 }).context).toBe(131072);
    expect(read({ rope_scaling: { type: 'yarn', factor: 4 }, max_position_embeddings: 131072 }).context).toBe(131072);
  });

  test('of LongRoPE switch at the original context, and only where there is more', () => {
    const factors = Array.from({ length: 64 }, (_, i) => 1 + i / 8);
    const scaling = { type: 'longrope', short_factor: factors.map(() => 1), long_factor: factors };
    const config = { rope_scaling: scaling, max_position_embeddings: 4096, original_max_position_embeddings: 1024 };
    const table = read(config);
    expect(table).toMatchObject({ switch: 1024, context: 4096, factor: Math.sqrt(1 + Math.log(4) / Math.log(1024)) });
    expect(table.longInvFreq[8]).toBeCloseTo(table.invFreq[8]! / 2, 7);
    const same = read({ ...config, original_max_position_embeddings: 4096 });
    expect(same).toMatchObject({ switch: 0, factor: 1 });
    expect(same.longInvFreq).toHaveLength(0);
  });

  test('read an empty or absent rope_scaling as none', () => {
    const plain = read({ rope_theta: 10000 });
    for (const config of [
      {},
      { rope_scaling: null },
      { rope_scaling: {} },
      { rope_parameters: { rope_theta: 10000 } },
    ]) {
      expect(read(config)).toEqual(plain);
    }
  });

  type Refusal = [string, Record<string, unknown>, string, RegExp];
  const refusals: Refusal[] = [
    ['longrope without factors', { rope_scaling: { rope_type: 'longrope' } }, 'ERR_BASE_ROPE', /short_factor/],
    [
      'longrope with too few factors',
      { rope_scaling: { rope_type: 'longrope', short_factor: [1], long_factor: [1] } },
      'ERR_BASE_ROPE',
      /short_factor has 1 numbers, 64/,
    ],
    ['an unknown type', { rope_parameters: { rope_type: 'mrope' } }, 'ERR_BASE_ROPE', /mrope .*yarn, llama3, longrope/],
    [
      'settings per layer type',
      { rope_parameters: { full_attention: { rope_theta: 1 } } },
      'ERR_BASE_ROPE',
      /full_attention/,
    ],
    ['partial rotary embeddings', { partial_rotary_factor: 0.5 }, 'ERR_BASE_ROPE', /partial_rotary_factor/],
    ['linear without a factor', { rope_scaling: { type: 'linear' } }, 'ERR_BASE_CONFIG', /factor is missing/],
    [
      'llama3 without its factors',
      { rope_scaling: { type: 'llama3', factor: 8 } },
      'ERR_BASE_CONFIG',
      /low_freq_factor/,
    ],
    [
      'YaRN with a negative beta',
      { rope_scaling: { type: 'yarn', factor: 4, beta_fast: -1 } },
      'ERR_BASE_ROPE',
      /no numbers/,
    ],
    ['a theta of 0', { rope_theta: 0 }, 'ERR_BASE_CONFIG', /rope_theta is 0/],
    [
      'a context beyond 32 bits by YaRN',
      { rope_scaling: { type: 'yarn', factor: 1e9, original_max_position_embeddings: 64 } },
      'ERR_BASE_ROPE',
      /factor 1000000000 makes a context of 64000000000, 16777216 is the most/,
    ],
    [
      'a factor beyond float32',
      { rope_scaling: { type: 'yarn', factor: 1e200, original_max_position_embeddings: 64 } },
      'ERR_BASE_CONFIG',
      /factor is 1e\+200, not a float32/,
    ],
    [
      'a theta that is 0 in float32',
      { rope_theta: 1e-90 },
      'ERR_BASE_CONFIG',
      /rope_theta is 1e-90, not a normal float32/,
    ],
    ...[63.5, 0.5].map((original): Refusal => {
      const factors = Array.from({ length: 64 }, () => 1);
      const rope_scaling = { rope_type: 'longrope', short_factor: factors, long_factor: factors };
      return [
        `longrope with an original context of ${original}`,
        { rope_scaling, original_max_position_embeddings: original },
        'ERR_BASE_CONFIG',
        new RegExp(`original_max_position_embeddings is ${original}, not an integer`),
      ];
    }),
  ];
  test.each(refusals)('refuse %s', (_, config, code, text) =>
    expectCode(
      Promise.resolve().then(() => read(config)),
      code,
      text,
    ),
  );
});
