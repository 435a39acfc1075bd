import type { ConfigReader } from '../config-reader.js';
import { readLlamaLike, unsupported, type Family } from './family.js';

/** Qwen2 and Qwen2.5: Llama's layout with a bias on q, k and v. */
export const qwen2: Family = {
  name: 'qwen2',
  architecture: 'Qwen2ForCausalLM',
  modelType: 'qwen2',
  defaults: {},
  read(config) {
    checkAttention(config);
    return readLlamaLike(config, {
      kvHeadsDefault: 32,
      contextDefault: 32_768,
      biasSites: ['q_proj', 'k_proj', 'v_proj'],
    });
  },
};

/** Every layer must see the whole context. Published configs set `sliding_window` and switch it off. */
function checkAttention(config: ConfigReader): void {
  if (config.boolean('use_mrope', false)) throw unsupported('use_mrope is not supported: positions have one dimension');
  const sliding = config.strings('layer_types').find((type) => type !== 'full_attention');
  if (sliding !== undefined) throw unsupported(`layer type ${sliding} is not supported; supported is full_attention`);
  if (!config.boolean('use_sliding_window', false) || config.get('layer_types') !== undefined) return;
  // transformers: layers from max_window_layers on slide; sliding_window null switches it off.
  const isOff = config.has('sliding_window') && config.get('sliding_window') === undefined;
  if (isOff || config.count('max_window_layers', 28, 0) >= config.count('num_hidden_layers')) return;
  throw unsupported('use_sliding_window is not supported: every layer must attend to the whole context');
}
