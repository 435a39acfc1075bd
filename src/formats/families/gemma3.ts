import type { ConfigReader } from '../config-reader.js';
import { readRopeSettings, type RopeTable } from '../rope.js';
import { readDecoder } from './decoder.js';
import { unsupported, type Family } from './family.js';
import { gemmaOptions } from './gemma2.js';
import { layerTypes, optionalCap, refuseBidirectional, slidingLayers, slidingWindow } from './options.js';

/** Gemma 3, the text models: five layers of six slide and have a rotary base of their own; q and k are normalised. */
export const gemma3: Family = {
  name: 'gemma3',
  architecture: 'Gemma3ForCausalLM',
  modelType: 'gemma3_text',
  defaults: { eosToken: 1, bosToken: 2 },
  read(config) {
    refuseBidirectional(config);
    const period = config.count('sliding_window_pattern', 6);
    return readDecoder(config, {
      ...gemmaOptions(config),
      contextDefault: 131_072,
      qkNorm: 'head',
      attentionSoftCap: optionalCap(config, 'attn_logit_softcapping', 0),
      logitSoftCap: optionalCap(config, 'final_logit_softcapping', 0),
      ropes: (headDim, context) => readRopes(config, headDim, context),
      layers: (layers) => {
        const types = layerTypes(config, layers, (layer) =>
          (layer + 1) % period === 0 ? 'full_attention' : 'sliding_attention',
        );
        return slidingLayers(config, types, slidingWindow(config, 4096)).map((layer, i) => ({
          ...layer,
          rope: types[i] === 'full_attention' ? 0 : 1,
        }));
      },
    });
  },
};

/** Of full and of sliding layers, in the old spelling (`rope_scaling` is of full layers) and in the new one. */
function readRopes(config: ConfigReader, headDim: number, context: number): RopeTable[] {
  const parameters = config.child('rope_parameters');
  const of = (type: string, old: ConfigReader | undefined, thetaKey: string, thetaDefault: number) => {
    const settings = old ?? parameters?.child(type);
    const theta = settings?.get('rope_theta') === undefined ? undefined : settings.positive('rope_theta');
    const table = readRopeSettings(settings, theta ?? config.positive(thetaKey, thetaDefault), config, {
      headDim,
      context,
    });
    if (table.switch > 0)
      throw unsupported(`rope_parameters: ${type}: longrope is not supported for layers of one type`);
    return table;
  };
  return [
    of('full_attention', config.child('rope_scaling'), 'rope_theta', 1_000_000),
    of('sliding_attention', undefined, 'rope_local_base_freq', 10_000),
  ];
}
