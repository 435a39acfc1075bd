// A checkpoint of the shape of Qwen2.5-0.5B with random weights (2 GB in f32), and adapters of rank 16 on all of its
// linear modules, written to disk within seconds.

import { namedShape, weightsOf } from '../../src/cli/bench/shapes.js';
import * as random from '../../src/cli/bench/random-weights.js';

export const SHAPE = namedShape('qwen2.5-0.5b');
export const RANK = 16;
const SHARDS = 3;

/** Elements of all layers' linear modules, of the head, and of one adapter. */
const weights = weightsOf(SHAPE, RANK);
export const LAYER_WEIGHTS = weights.layers;
export const HEAD_WEIGHTS = weights.head;
export const ADAPTER_WEIGHTS = weights.adapter;

/** Writes the checkpoint into `folder`. */
export const writeBase = (folder: string): Promise<void> =>
  random.writeBase(folder, SHAPE, { dtype: 'f32', shards: SHARDS });

/** Writes an adapter into `folder`. */
export const writeAdapter = (folder: string, seed: number): Promise<void> =>
  random.writeAdapter(folder, SHAPE, RANK, seed, { dtype: 'f32' });
