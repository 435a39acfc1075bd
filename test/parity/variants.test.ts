// The same references with other ways to keep and compute: each SIMD level, activations rounded to bf16, K and V in 16 and 8 bits, weights widened to
// float32, one thread and chunks of another size. Needs a built addon: npm run build:native.

import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { loadBase, type Base, type LoadBaseOptions } from '../../src/index.js';
import { SIMD_LEVELS, type DType } from '../../src/native/binding.js';
import { loadNative } from '../../src/native/load.js';
import { boundOf, compare, generate, LIMITS } from './compare.js';
import { readReferences, type Reference, type ReferenceSet } from './references.js';

const sets = readReferences();
const setOf = (name: string) => sets.find((set) => set.name === name)!;

async function withBase(set: ReferenceSet, o: Partial<LoadBaseOptions>, use: (base: Base) => Promise<void>) {
  await using base = await loadBase({ path: set.path, kvDtype: 'f32', limits: LIMITS, threads: 2, ...o });
  for (const { adapter } of set.cases) {
    if (adapter !== null) await base.registerAdapter(adapter, `${set.path}/adapters/${adapter}`);
  }
  await use(base);
}

async function check(base: Base, set: ReferenceSet, reference: Reference, kv?: DType) {
  const bound = await boundOf(set, reference, kv);
  const result = await generate(base, reference);
  expect(compare(result, reference, set.top, bound)).toBeLessThanOrEqual(bound);
  if (reference.gap > bound) expect(result.tokens).toEqual(reference.greedy);
  return result;
}

describe.each(SIMD_LEVELS)('SIMD level %s', (simd) => {
  const isHere = loadNative().binding.probe().simdLevels.includes(simd);
  test.skipIf(!isHere).each(['llama-gqa', 'llama-tied-bf16', 'llama3-rope-f16', 'gemma2', 'phi3'])(
    `has the logits of transformers for %s (needs a processor with ${simd})`,
    async (name) => {
      const set = setOf(name);
      await withBase(set, { simd }, async (base) => {
        for (const reference of set.cases) await check(base, set, reference);
      });
    },
  );
});

describe("compute: 'bf16'", () => {
  const inBF16 = sets.filter(({ dtypes }) => dtypes.includes('bf16'));

  const overKv = inBF16.flatMap((set) =>
    (['f32', 'bf16'] as const).map((kvDtype) => ({ name: set.name, set, kvDtype })),
  );

  test.each(overKv)(
    'rounds activations, and is within the bound of that for $name over K and V in $kvDtype with every adapter',
    async ({ set, kvDtype }) => {
      await withBase(set, { dtype: 'bf16', compute: 'bf16', kvDtype }, async (base) => {
        for (const reference of set.cases) {
          const bound = await boundOf(set, reference, kvDtype, 'bf16');
          const worst = compare(await generate(base, reference), reference, set.top, bound);
          expect(worst).toBeLessThanOrEqual(bound);
          expect(worst).toBeGreaterThan(await boundOf(set, reference)); // or nothing was rounded
        }
      });
    },
  );

  test.each(['f32', 'bf16'] as const)('gives the same bits on every SIMD level over K and V in %s', async (kvDtype) => {
    const set = setOf('llama-tied-bf16');
    const answers: unknown[] = [];
    for (const simd of loadNative().binding.probe().simdLevels) {
      await withBase(set, { simd, compute: 'bf16', threads: 1, kvDtype }, async (base) => {
        const results = await Promise.all(set.cases.map((reference) => generate(base, reference)));
        answers.push(results.map(({ tokens, logprobs, promptLogprobs }) => ({ tokens, logprobs, promptLogprobs })));
      });
    }
    for (const answer of answers.slice(1)) expect(answer).toEqual(answers[0]);
  });
});

describe('K and V', () => {
  test.each(['llama-gqa', 'llama3-rope-f16', 'gemma2', 'qwen3', 'phi3'])(
    'in int8 are within the bound of that for %s with every adapter',
    async (name) => {
      const set = setOf(name);
      await withBase(set, { kvDtype: 'int8' }, async (base) => {
        for (const reference of set.cases) {
          const bound = await boundOf(set, reference, 'int8');
          const worst = compare(await generate(base, reference), reference, set.top, bound);
          expect(worst).toBeLessThanOrEqual(bound);
          expect(worst).toBeGreaterThan(await boundOf(set, reference)); // or nothing was rounded
        }
      });
    },
  );

  test.each(sets.filter(({ dtype }) => dtype !== 'f32'))(
    "in the base's own 16 bits are within the bound of that dtype for $name",
    async (set) => {
      await withBase(set, { kvDtype: 'auto' }, async (base) => {
        for (const reference of set.cases) {
          await check(base, set, reference, set.dtype);
        }
      });
    },
  );
});

describe('weights', () => {
  test.each(['llama-tied-bf16', 'llama3-rope-f16'])(
    'of %s, widened to float32, have the logits of float32 with every adapter',
    async (name) => {
      const set = setOf(name);
      await withBase(set, { dtype: 'f32' }, async (base) => {
        for (const reference of set.cases) await check(base, set, reference);
      });
    },
  );
});

test('tensors may begin at odd bytes, as files of old writers do', async () => {
  const set = setOf('llama3-rope-f16');
  const path = mkdtempSync(join(tmpdir(), 'openlora-odd-'));
  try {
    cpSync(set.path, path, { recursive: true });
    for (const file of ['model.safetensors', ...set.cases.flatMap(({ adapter }) => fileOf(adapter))])
      shift(join(path, file));
    await withBase({ ...set, path }, {}, async (base) => {
      for (const reference of set.cases) await check(base, set, reference);
    });
  } finally {
    rmSync(path, { recursive: true, force: true });
  }
});

const fileOf = (adapter: string | null) => (adapter === null ? [] : [`adapters/${adapter}/adapter_model.safetensors`]);

/** One space more behind the header. */
function shift(path: string): void {
  const bytes = readFileSync(path);
  const length = Number(bytes.readBigUInt64LE());
  bytes.writeBigUInt64LE(BigInt(length + 1));
  writeFileSync(path, Buffer.concat([bytes.subarray(0, 8 + length), Buffer.from(' '), bytes.subarray(8 + length)]));
}

test('threads and the size of chunks change no bit', async () => {
  const set = setOf('llama-gqa');
  const answers: unknown[] = [];
  for (const [threads, maxBatchTokens] of [
    [2, 48],
    [1, 48],
    [3, 7],
    [2, 1],
    [1, 256],
  ] as const) {
    await withBase(set, { threads, limits: { ...LIMITS, maxBatchTokens } }, async (base) => {
      const results = await Promise.all(set.cases.map((reference) => generate(base, reference)));
      answers.push(results.map(({ tokens, logprobs, promptLogprobs }) => ({ tokens, logprobs, promptLogprobs })));
    });
  }
  for (const answer of answers.slice(1)) expect(answer).toEqual(answers[0]);
});
