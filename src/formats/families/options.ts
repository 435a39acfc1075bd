// Keys that several families have.

import type { LayerSite, LayerSpec } from '../../native/binding.js';
import type { ConfigReader } from '../config-reader.js';
import { unsupported } from './family.js';

/** Sites with a bias where `attention_bias` and, if the family has it, `mlp_bias` say so. */
export function biasSites(config: ConfigReader, hasMlpBias = false): LayerSite[] {
  const sites: LayerSite[] = [];
  if (config.boolean('attention_bias', false)) sites.push('q_proj', 'k_proj', 'v_proj', 'o_proj');
  if (hasMlpBias && config.boolean('mlp_bias', false)) sites.push('gate_proj', 'up_proj', 'down_proj');
  return sites;
}

/** A number over 0, or 0 where the key is null; `fallback` where it is missing. */
export function optionalCap(config: ConfigReader, key: string, fallback: number): number {
  if (config.has(key) && config.get(key) === undefined) return 0;
  return config.get(key) === undefined ? fallback : config.positive(key);
}

export type LayerType = 'full_attention' | 'sliding_attention';

/** `layer_types`, or where it is missing what the family derives. */
export function layerTypes(config: ConfigReader, layers: number, derive: (layer: number) => LayerType): LayerType[] {
  if (config.get('layer_types') === undefined) return Array.from({ length: layers }, (_, layer) => derive(layer));
  const types = config.strings('layer_types');
  const unknown = types.find((type) => type !== 'full_attention' && type !== 'sliding_attention');
  if (unknown !== undefined) {
    throw unsupported(`layer type ${unknown} is not supported; supported are full_attention, sliding_attention`);
  }
  if (types.length !== layers) throw config.fail('layer_types', types, `a list of ${layers} types`);
  return types as LayerType[];
}

/** Layers that see `window` positions where they slide. `window` undefined: none may slide. */
export function slidingLayers(config: ConfigReader, types: LayerType[], window: number | undefined): LayerSpec[] {
  if (window === undefined && types.includes('sliding_attention')) {
    throw config.fail('sliding_window', config.get('sliding_window'), 'a number of positions, which layer_types needs');
  }
  return types.map((type) => ({ window: type === 'sliding_attention' ? window! : 0, rope: 0 }));
}

/** `sliding_window`; undefined where it is null. */
export function slidingWindow(config: ConfigReader, fallback: number | undefined): number | undefined {
  const isMissing = config.get('sliding_window') === undefined;
  if (isMissing) return config.has('sliding_window') ? undefined : fallback;
  return config.count('sliding_window');
}

/** Refuses models that look ahead. */
export function refuseBidirectional(config: ConfigReader): void {
  if (config.boolean('use_bidirectional_attention', false)) {
    throw unsupported('use_bidirectional_attention is not supported: a token must not see those after it');
  }
}
