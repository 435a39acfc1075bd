import { readDecoder } from './decoder.js';
import type { Family } from './family.js';
import { biasSites } from './options.js';

/** Llama 1, 2, 3, 3.x, SmolLM2 and the many models that are published as LlamaForCausalLM. */
export const llama: Family = {
  name: 'llama',
  architecture: 'LlamaForCausalLM',
  modelType: 'llama',
  defaults: { eosToken: 2, bosToken: 1 },
  read: (config) => readDecoder(config, { contextDefault: 2048, biasSites: biasSites(config, true) }),
};
