// Hundreds of refusals, said in a few: those that differ only in module and layer are one.

import type { OpenLoraError } from '../errors.js';

/** One reason why an adapter doesn't fit, and everything that it is true of. */
export interface Misfit {
  code: string;
  /** Of the first one. */
  message: string;
  /** How many tensors or modules it is true of; 1 where it isn't about tensors. */
  count: number;
  /** The first of them. */
  tensor?: string;
  /** Modules without their layers: `self_attn.q_proj`; empty where it isn't about modules. */
  modules: string[];
  /** Layers that it is true of, ascending. */
  layers: number[];
  /** Of shapes. */
  matrix?: 'A' | 'B';
  got?: number[];
  wanted?: number[];
}

export function groupRefusals(refusals: readonly OpenLoraError[]): Misfit[] {
  const groups = new Map<string, Misfit & { seen: Set<number> }>();
  for (const { code, message, details } of refusals) {
    const name = typeof details.tensor === 'string' ? details.tensor : undefined;
    const place = name === undefined ? undefined : placeOf(name);
    const shapes = shapesOf(details, place?.matrix);
    const pattern = name === undefined ? message : message.replaceAll(name, '*').replace(/\blayer \d+/, 'layer *');
    const key = `${code} ${shapes.matrix ?? ''} ${pattern}`;
    let group = groups.get(key);
    if (!group) {
      const first = { code, message, count: 0, ...(name === undefined ? {} : { tensor: name }) };
      group = { ...first, modules: [], layers: [], ...shapes, seen: new Set() };
      groups.set(key, group);
    }
    group.count++;
    if (place && !group.modules.includes(place.module)) group.modules.push(place.module);
    if (place?.layer !== undefined) group.seen.add(place.layer);
  }
  return [...groups.values()].map(({ seen, ...group }) => ({ ...group, layers: [...seen].sort((a, b) => a - b) }));
}

/** What follows a module in the names of tensors. */
const ENDS = [
  /\.lora_(?:embedding_)?(?<matrix>[AB])\b.*$/s,
  /\.(?:lora_magnitude_vector|modules_to_save|token_adapter|trainable_tokens)\b.*$/s,
  /(?:\.base_layer)?\.(?:weight|bias)$/,
];

/** Of a tensor's name, or of a module's. */
function placeOf(name: string): { module: string; layer: number | undefined; matrix: 'A' | 'B' | undefined } {
  const end = ENDS.reduce<RegExpExecArray | null>((found, pattern) => found ?? pattern.exec(name), null);
  const path = name.slice(0, end?.index);
  const matrix = end?.groups?.matrix;
  const inLayer = /^(?:.*\.)?\w+\.(\d+)\.(.+)$/s.exec(path);
  return {
    module: inLayer ? inLayer[2]! : path.replace(/^base_model\.model\./, ''),
    layer: inLayer ? Number(inLayer[1]) : undefined,
    matrix: matrix as 'A' | 'B' | undefined,
  };
}

function shapesOf(details: OpenLoraError['details'], matrix: 'A' | 'B' | undefined): Partial<Misfit> {
  const { got, wanted } = details;
  if (!Array.isArray(got) || !Array.isArray(wanted)) return {};
  return { ...(matrix ? { matrix } : {}), got: got as number[], wanted: wanted as number[] };
}
