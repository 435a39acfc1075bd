import { readDecoder } from './decoder.js';
import type { Family } from './family.js';
import { slidingWindow } from './options.js';

/** Mistral 7B and those of its kind: in the first versions every layer sees a window. */
export const mistral: Family = {
  name: 'mistral',
  architecture: 'MistralForCausalLM',
  modelType: 'mistral',
  defaults: { eosToken: 2, bosToken: 1 },
  read: (config) =>
    readDecoder(config, {
      kvHeadsDefault: 8,
      contextDefault: 131_072,
      layers: (layers) => {
        const window = slidingWindow(config, 4096) ?? 0;
        return Array.from({ length: layers }, () => ({ window, rope: 0 }));
      },
    }),
};
