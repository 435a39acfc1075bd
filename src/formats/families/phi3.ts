import { readDecoder } from './decoder.js';
import type { Family } from './family.js';
import { slidingWindow } from './options.js';

/** Phi-3-mini and -medium, Phi-3.5-mini, Phi-4 and Phi-4-mini: fused qkv and gate_up, LongRoPE, partly rotated heads. */
export const phi3: Family = {
  name: 'phi3',
  architecture: 'Phi3ForCausalLM',
  modelType: 'phi3',
  defaults: { eosToken: 32_000, bosToken: 1 },
  read: (config) =>
    readDecoder(config, {
      contextDefault: 4096,
      normEpsDefault: 1e-5,
      isFused: true,
      // The first versions called LongRoPE so.
      rope: { canBePartial: true, originalDefault: 4096, aliases: { su: 'longrope', yarn: 'longrope' } },
      layers: (layers) => {
        const window = slidingWindow(config, undefined) ?? 0;
        return Array.from({ length: layers }, () => ({ window, rope: 0 }));
      },
    }),
};
