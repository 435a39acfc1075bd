import type { ConfigReader } from '../config-reader.js';
import { readDecoder } from './decoder.js';
import { unsupported, type Family } from './family.js';
import { layerTypes, slidingLayers, slidingWindow } from './options.js';
import type { LayerSpec } from '../../native/binding.js';

/** Qwen2 and Qwen2.5: Llama's layout with a bias on q, k and v. */
export const qwen2: Family = {
  name: 'qwen2',
  architecture: 'Qwen2ForCausalLM',
  modelType: 'qwen2',
  defaults: {},
  read(config) {
    if (config.boolean('use_mrope', false))
      throw unsupported('use_mrope is not supported: positions have one dimension');
    return readDecoder(config, {
      kvHeadsDefault: 32,
      contextDefault: 32_768,
      biasSites: ['q_proj', 'k_proj', 'v_proj'],
      layers: (layers) => qwenLayers(config, layers),
    });
  },
};

/** With `use_sliding_window` the layers from `max_window_layers` on slide. Published configs give a window and switch it off. */
export function qwenLayers(config: ConfigReader, layers: number): LayerSpec[] {
  const window = config.boolean('use_sliding_window', false) ? slidingWindow(config, 4096) : undefined;
  const first = config.count('max_window_layers', 28, 0);
  const types = layerTypes(config, layers, (layer) =>
    window !== undefined && layer >= first ? 'sliding_attention' : 'full_attention',
  );
  return slidingLayers(config, types, window);
}
