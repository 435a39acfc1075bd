import type { LayerSite } from '../../native/binding.js';
import { readLlamaLike, type Family } from './family.js';

/** Llama 1, 2, 3, 3.x and the many models that are published as LlamaForCausalLM. */
export const llama: Family = {
  name: 'llama',
  architecture: 'LlamaForCausalLM',
  modelType: 'llama',
  defaults: { eosToken: 2, bosToken: 1 },
  read(config) {
    const biasSites: LayerSite[] = [];
    if (config.boolean('attention_bias', false)) biasSites.push('q_proj', 'k_proj', 'v_proj', 'o_proj');
    if (config.boolean('mlp_bias', false)) biasSites.push('gate_proj', 'up_proj', 'down_proj');
    return readLlamaLike(config, { contextDefault: 2048, biasSites });
  },
};
