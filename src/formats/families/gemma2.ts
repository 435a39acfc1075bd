import type { ConfigReader } from '../config-reader.js';
import { readDecoder, type DecoderOptions } from './decoder.js';
import type { Family } from './family.js';
import { biasSites, layerTypes, optionalCap, refuseBidirectional, slidingLayers, slidingWindow } from './options.js';

/** Gemma 2: soft caps, every other layer slides, norms before and behind. */
export const gemma2: Family = {
  name: 'gemma2',
  architecture: 'Gemma2ForCausalLM',
  modelType: 'gemma2',
  defaults: { eosToken: 1, bosToken: 2 },
  read(config) {
    refuseBidirectional(config);
    return readDecoder(config, {
      ...gemmaOptions(config),
      contextDefault: 8192,
      attentionSoftCap: optionalCap(config, 'attn_logit_softcapping', 50),
      logitSoftCap: optionalCap(config, 'final_logit_softcapping', 30),
      layers: (layers) => {
        const types = layerTypes(config, layers, (layer) => (layer % 2 === 0 ? 'sliding_attention' : 'full_attention'));
        return slidingLayers(config, types, slidingWindow(config, 4096));
      },
    });
  },
};

/**
 * What Gemma 2 and 3 share. transformers rounds sqrt(hidden) to the dtype that it computes in; the engine computes in f32
 * whatever the weights are kept in.
 */
export function gemmaOptions(config: ConfigReader): Omit<DecoderOptions, 'contextDefault'> {
  return {
    kvHeadsDefault: 4,
    headDimDefault: 256,
    isTiedDefault: true,
    activation: { key: 'hidden_activation', fallback: 'gelu_pytorch_tanh' },
    biasSites: biasSites(config),
    norms: 'both',
    normOffset: 1,
    attentionScale: config.positive('query_pre_attn_scalar', 256) ** -0.5,
    embeddingScale: Math.sqrt,
  };
}
