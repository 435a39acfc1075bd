import type { ConfigReader } from '../config-reader.js';
import type { LayerSpec } from '../../native/binding.js';
import { readDecoder } from './decoder.js';
import type { Family } from './family.js';
import { biasSites, layerTypes, slidingLayers, slidingWindow } from './options.js';

/** SmolLM3: one layer of four has no positions. */
export const smollm3: Family = {
  name: 'smollm3',
  architecture: 'SmolLM3ForCausalLM',
  modelType: 'smollm3',
  defaults: { eosToken: 128_001, bosToken: 128_000 },
  read: (config) =>
    readDecoder(config, {
      kvHeadsDefault: 4,
      contextDefault: 32_768,
      isTiedDefault: true,
      biasSites: biasSites(config, true),
      rope: { thetaDefault: 2_000_000 },
      layers: (layers) => readLayers(config, layers),
    }),
};

function readLayers(config: ConfigReader, layers: number): LayerSpec[] {
  const hasRope = readRopeLayers(config, layers);
  const window = config.boolean('use_sliding_window', false) ? slidingWindow(config, undefined) : undefined;
  const types = layerTypes(config, layers, (layer) =>
    window !== undefined && !hasRope[layer] ? 'sliding_attention' : 'full_attention',
  );
  return slidingLayers(config, types, window).map((layer, i) => ({ ...layer, rope: hasRope[i] ? 0 : -1 }));
}

/** `no_rope_layers` has a 1 for a layer with positions, despite its name. */
function readRopeLayers(config: ConfigReader, layers: number): boolean[] {
  const list = config.get('no_rope_layers');
  if (list === undefined) {
    const interval = config.count('no_rope_layer_interval', 4);
    return Array.from({ length: layers }, (_, layer) => (layer + 1) % interval !== 0);
  }
  if (!Array.isArray(list) || list.length < layers || !list.every((one) => one === 0 || one === 1)) {
    throw config.fail('no_rope_layers', list, `a list of ${layers} zeros and ones`);
  }
  return list.slice(0, layers).map((one) => one === 1);
}
