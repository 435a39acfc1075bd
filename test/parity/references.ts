// The committed references of transformers + peft, and how far a correct float32 engine may be from them.

import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { DType, HeldDType } from '../../src/native/binding.js';
import type { Compute } from '../../src/sdk/load-options.js';
import type { AdapterFolder, BaseFolder } from '../../src/formats/types.js';

export const DATA = fileURLToPath(new URL('../data/parity/', import.meta.url));

interface SavedCase {
  adapter: string | null;
  prompt: number[];
  greedy: number[];
  gap: number;
  torchError: number;
  hiddenNorm: number;
  headNorm: number;
  logprobs: string;
  topIds: string;
  topLogprobs: string;
}

/** One prompt through one base, with one adapter or none. */
export interface Reference extends Omit<SavedCase, 'logprobs' | 'topIds' | 'topLogprobs'> {
  /** Of each token from the prompt's second on, then of the greedy ones. */
  logprobs: Float32Array;
  /** The most likely tokens at each prompt position but the last, `top` for each. */
  topIds: Int16Array;
  topLogprobs: Float32Array;
}

export interface ReferenceSet {
  name: string;
  path: string;
  /** Of the files. */
  dtype: DType;
  /** In which the weights are the same numbers. */
  dtypes: DType[];
  top: number;
  cases: Reference[];
}

export function readReferences(): ReferenceSet[] {
  return readdirSync(DATA)
    .sort()
    .map((name) => {
      const path = `${DATA}${name}`;
      const saved = JSON.parse(readFileSync(`${path}/references.json`, 'utf8')) as {
        dtype: DType;
        dtypes?: DType[];
        top: number;
        cases: SavedCase[];
      };
      const cases = saved.cases.map((one) => ({
        ...one,
        logprobs: new Float32Array(bytesOf(one.logprobs)),
        topIds: new Int16Array(bytesOf(one.topIds)),
        topLogprobs: new Float32Array(bytesOf(one.topLogprobs)),
      }));
      return { name, path, dtype: saved.dtype, dtypes: saved.dtypes ?? [saved.dtype], top: saved.top, cases };
    });
}

function bytesOf(base64: string): ArrayBuffer {
  const bytes = Buffer.from(base64, 'base64');
  return bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length);
}

/** Unit roundoff, 2^-p for p significant bits. */
const UNIT: Record<DType, number> = { f32: 2 ** -24, f16: 2 ** -11, bf16: 2 ** -8 };

/**
 * Largest difference of a log-probability that rounding explains, between two engines that compute in float32 and
 * differ in the order of their sums.
 *
 * A sum of n products whose rounding errors don't conspire is off by u·√n of |a|·|b| (Higham & Mary 2019, "A new
 * approach to probabilistic rounding error analysis"). Along the residual stream the relative errors of the layers add
 * up: each layer has sums of length H (two norms, q/k/v, gate/up), heads·D (o), D (scores), T (softmax and values) and
 * I (down). The last hidden state is then off by a vector of length r·|h| in no particular direction, so a logit by
 * σ = r·|h|·|w|/√H, and 4σ is not exceeded (p < 1e-4 each; |h| and |w| are the largest there are). A difference of two logits,
 * and so a log-softmax, has twice that; two engines' errors are independent, √2. Greedy tokens can't differ
 * where the gap of the two best logits is larger.
 */
export function tolerance(
  reference: Reference,
  base: BaseFolder,
  adapter?: AdapterFolder,
  kv: HeldDType = 'f32',
  compute: Compute = 'f32',
): number {
  const { layers, hidden, heads, headDim, intermediate } = base.spec;
  const context = reference.prompt.length + reference.greedy.length;
  const sums = [hidden, hidden, hidden, hidden, heads * headDim, headDim, context, context, intermediate];
  const rank = adapter?.info.rank.max ?? 0;
  // Shrink and expand add sums of length H (or I) and R to a projection; three projections in a row have them.
  const extra = rank > 0 ? 3 * (Math.sqrt(Math.max(hidden, intermediate)) + Math.sqrt(rank)) : 0;
  const layer = sums.reduce((total, n) => total + Math.sqrt(n), extra);
  const relative =
    UNIT.f32 * (layers * layer + Math.sqrt(hidden)) + kvError(layers, headDim, kv) + xError(layers, compute, kv);
  const sigma = (relative * reference.hiddenNorm * reference.headNorm) / Math.sqrt(hidden);
  return 2 * Math.SQRT2 * 4 * sigma;
}

/**
 * K and V in 16 bits: each element is off by u / √3 of itself, as if at random. For V that is u / √3 of the attention's
 * output; for K the scores, of standard deviation about 1 in these checkpoints, move by as much, and the output with
 * them. The layers' errors add up at random. In int8 an element is off by up to half a step, the row's largest / 254 (its scale is
 * rounded up by at most 1/128), and the largest is at most √D times the root of the mean square.
 */
function kvError(layers: number, headDim: number, kept: HeldDType): number {
  if (kept === 'f32') return 0;
  const unit = kept === 'int8' ? ((1 + 1 / 128) * Math.sqrt(headDim)) / 254 : UNIT[kept];
  return 2 * (unit / Math.sqrt(3)) * Math.sqrt(layers);
}

/**
 * x rounded to bf16 in every product of the base: each element is off by at most u of itself, u / √3 as if at random, and so is
 * each product, in a direction of its own. In a layer these are q and k, which move the scores as in `kvError`, v, o, gate, up
 * and down; then the head. They add up at random. Over K and V in bf16 attention rounds q once more, and the softmax's weights, which
 * stand beside V as q beside K.
 */
function xError(layers: number, compute: Compute, kv: HeldDType): number {
  const ofLayer = kv === 'bf16' ? 9 : 7;
  return compute === 'f32' ? 0 : (UNIT.bf16 / Math.sqrt(3)) * Math.sqrt(ofLayer * layers + 1);
}
