// What a base's reader may hand to C++, whatever the config was.

import { expect } from 'vitest';
import type { ModelSpec } from '../../src/native/binding.js';

const COUNTS = ['layers', 'hidden', 'heads', 'kvHeads', 'headDim', 'intermediate', 'vocab', 'context'] as const;
const SCALES = [
  ...(['normEps', 'attentionScale', 'embeddingScale', 'residualScale', 'logitScale', 'normOffset'] as const),
  ...(['attentionSoftCap', 'logitSoftCap'] as const),
];

const isCount = (size: number, min: number) => Number.isSafeInteger(size) && size >= min && size <= 1 << 24;

/** Sizes are in range, numbers finite as float32, tables of one size, layers' options of this model. */
export function expectSoundSpec(spec: ModelSpec): void {
  for (const key of COUNTS) expect(spec[key], key).toSatisfy((size: number) => isCount(size, 1));
  for (const key of SCALES) expect(Math.fround(spec[key]), key).toSatisfy(Number.isFinite);
  for (const key of ['normEps', 'logitScale'] as const) expect(Math.fround(spec[key]), key).toBeGreaterThan(0);
  for (const key of ['attentionSoftCap', 'logitSoftCap'] as const) {
    expect(spec[key], key).toBeGreaterThanOrEqual(0);
    // 0 means none: a cap that float32 rounds to it would be lost.
    expect(Math.fround(spec[key]) === 0, key).toBe(spec[key] === 0);
  }
  expect(spec.ropeSwitch).toSatisfy((tokens: number) => isCount(tokens, 0));
  expect(spec.ropes.length).toBeGreaterThan(0);
  const [{ invFreq: first }] = spec.ropes as [ModelSpec['ropes'][0]];
  expect(first.length).toSatisfy((size: number) => size >= 1 && 2 * size <= spec.headDim);
  for (const { invFreq, longInvFreq, factor } of spec.ropes) {
    expect(invFreq).toHaveLength(first.length);
    expect(longInvFreq).toHaveLength(spec.ropeSwitch > 0 ? first.length : 0);
    for (const [name, table] of Object.entries({ invFreq, longInvFreq }))
      expect(table.every(Number.isFinite), `${name} ${table.join(' ')}`).toBe(true);
    expect(Math.fround(factor), 'factor').toSatisfy(Number.isFinite);
  }
  expect(spec.layerOptions).toHaveLength(spec.layers);
  for (const { window, rope } of spec.layerOptions) {
    expect(window, 'window').toSatisfy((positions: number) => isCount(positions, 0));
    expect(rope, 'rope').toSatisfy(
      (table: number) => Number.isInteger(table) && table >= -1 && table < spec.ropes.length,
    );
  }
}
