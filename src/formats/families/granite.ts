import { readDecoder } from './decoder.js';
import type { Family } from './family.js';
import { biasSites } from './options.js';

/** Granite 3.x, dense: Llama's layout with four multipliers. */
export const granite: Family = {
  name: 'granite',
  architecture: 'GraniteForCausalLM',
  modelType: 'granite',
  defaults: { eosToken: 2, bosToken: 1 },
  read(config) {
    const embeddingScale = config.number('embedding_multiplier', 1);
    return readDecoder(config, {
      contextDefault: 2048,
      biasSites: biasSites(config, true),
      attentionScale: config.number('attention_multiplier', 1),
      embeddingScale: () => embeddingScale,
      residualScale: config.number('residual_multiplier', 1),
      logitScale: 1 / config.positive('logits_scaling', 1),
    });
  },
};
