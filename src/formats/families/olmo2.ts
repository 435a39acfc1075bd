import { readDecoder } from './decoder.js';
import type { Family } from './family.js';
import { biasSites } from './options.js';

/** OLMo 2: norms behind attention and MLP, none before; q and k are normalised over all their heads. */
export const olmo2: Family = {
  name: 'olmo2',
  architecture: 'Olmo2ForCausalLM',
  modelType: 'olmo2',
  defaults: { eosToken: 50_279 },
  read: (config) =>
    readDecoder(config, {
      contextDefault: 2048,
      normEpsDefault: 1e-5,
      norms: 'behind',
      qkNorm: 'all',
      biasSites: biasSites(config),
    }),
};
