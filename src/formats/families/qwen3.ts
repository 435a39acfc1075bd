import { readDecoder } from './decoder.js';
import type { Family } from './family.js';
import { biasSites } from './options.js';
import { qwenLayers } from './qwen2.js';

/** Qwen3: q and k are normalised, head by head. */
export const qwen3: Family = {
  name: 'qwen3',
  architecture: 'Qwen3ForCausalLM',
  modelType: 'qwen3',
  defaults: {},
  read: (config) =>
    readDecoder(config, {
      kvHeadsDefault: 32,
      headDimDefault: 128,
      contextDefault: 32_768,
      qkNorm: 'head',
      biasSites: biasSites(config),
      layers: (layers) => qwenLayers(config, layers),
    }),
};
