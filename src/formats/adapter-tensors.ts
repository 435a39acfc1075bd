// The tensors of an adapter against what its config and base promise.
//
// | code                       | meaning                                                                            |
// |----------------------------|------------------------------------------------------------------------------------|
// | ERR_ADAPTER_TENSOR_MISSING | a module that the config promises has no tensors                                   |
// | ERR_ADAPTER_TENSOR_SURPLUS | a tensor that the config doesn't promise, or that the base has no such module for |
// | ERR_ADAPTER_HALF_PAIR      | A without B, or B without A                                                        |
// | ERR_ADAPTER_LAYER          | a tensor of a layer that the base doesn't have                                     |
// | ERR_ADAPTER_RANK           | a tensor's rank isn't the one that the config gives                                |
// | ERR_ADAPTER_SHAPE          | a tensor doesn't fit the base's module                                             |
// | ERR_ADAPTER_DTYPE          | a tensor is neither F32, F16 nor BF16                                              |
// | ERR_ADAPTER_BASE_TENSOR    | a saved base tensor that isn't the base's (equality is checked natively)           |

import { OpenLoraError } from '../errors.js';
import type { AdapterTensor, DType, TensorRange, WeightRole } from '../native/binding.js';
import { AdapterNames, fusedOtherwise, type AdapterTensorName } from './adapter-names.js';
import type { Pacer } from './pacer.js';
import type { TargetSite } from './peft-targets.js';
import type { SafetensorsTensor } from './safetensors.js';
import type { BaseFolder, SavedBaseTensor } from './types.js';

const DTYPES: Readonly<Record<string, DType>> = { F32: 'f32', F16: 'f16', BF16: 'bf16' };

/** A tensor and the file that has it, by its place in `AdapterSpec.files`. */
export interface FoundTensor extends SafetensorsTensor {
  file: number;
}

/** What becomes of a refusal: it is thrown, or noted while the rest is looked at. */
export type Refuse = (error: OpenLoraError) => void;

export const throwRefusal: Refuse = (error) => {
  throw error;
};

/** Runs a check; what it refuses goes to `refuse`. */
export function guarded<T>(refuse: Refuse, check: () => T): T | undefined {
  try {
    return check();
  } catch (error) {
    if (!OpenLoraError.is(error)) throw error;
    refuse(error);
    return undefined;
  }
}

export interface AdapterTensors {
  tensors: AdapterTensor[];
  baseTensors: SavedBaseTensor[];
}

interface Pair {
  A?: FoundTensor;
  B?: FoundTensor;
}

/** Pairs an adapter's tensors with the sites that the config names. Refuses with the codes above and those of adapter-names.ts. */
export async function matchTensors(
  found: Iterable<FoundTensor>,
  targets: TargetSite[],
  base: BaseFolder,
  pacer: Pacer,
  refuse: Refuse = throwRefusal,
): Promise<AdapterTensors> {
  const pairs = new Map<string, Pair>(targets.map(({ site }) => [site.name, {}]));
  const baseTensors: SavedBaseTensor[] = [];
  const names = new AdapterNames();
  for (const tensor of found) {
    if (pacer.isDue) await pacer.rest();
    guarded(refuse, () => {
      const name = names.read(tensor.name);
      if (name.kind === 'base-weight' || name.kind === 'base-bias') {
        baseTensors.push(baseTensor(tensor, name, base));
        return;
      }
      const pair = pairs.get(name.module);
      const isEmbedding = name.kind.startsWith('embedding');
      if (!pair || isEmbedding !== isEmbeddingModule(name.module)) throw surplus(tensor, name.module, base);
      pair[name.kind.endsWith('A') ? 'A' : 'B'] = tensor;
    });
  }
  const tensors: AdapterTensor[] = [];
  for (const target of targets) {
    if (pacer.isDue) await pacer.rest();
    tensors.push(...(guarded(refuse, () => checkPair(target, pairs.get(target.site.name)!, refuse)) ?? []));
  }
  return { tensors, baseTensors };
}

function isEmbeddingModule(module: string): boolean {
  return module === 'embed_tokens' || module.endsWith('.embed_tokens');
}

function surplus(tensor: SafetensorsTensor, module: string, base: BaseFolder): OpenLoraError {
  const { name } = tensor;
  const layer = /(?:^|\.)layers\.(\d+)\./.exec(module);
  if (layer && Number(layer[1]) >= base.spec.layers) {
    return error('LAYER', `tensor ${name} is of layer ${layer[1]}, the base has 0 to ${base.spec.layers - 1}`, name);
  }
  const has = (one: string): boolean => base.sites.some((site) => site.name === one);
  const fused = fusedOtherwise(module, has);
  if (fused !== undefined)
    return error('TENSOR_SURPLUS', `tensor ${name} is of a module that the base does not have: ${fused}`, name);
  const why = has(module) ? 'the config does not target it' : 'the base has no such module';
  return error('TENSOR_SURPLUS', `tensor ${name} is not promised by adapter_config.json: ${why}`, name);
}

function checkPair(target: TargetSite, pair: Pair, refuse: Refuse): [AdapterTensor, AdapterTensor] {
  const { site, rank } = target;
  const { A, B } = pair;
  if (!A && !B)
    throw error(
      'TENSOR_MISSING',
      `${site.name}: adapter_config.json targets it, the file has no tensors of it`,
      site.name,
    );
  if (!A || !B) throw error('HALF_PAIR', `${site.name} has ${A ? 'A without B' : 'B without A'}`, site.name);
  guarded(refuse, () => checkShape(A, rank, [rank, site.in], 0));
  guarded(refuse, () => checkShape(B, rank, [site.out, rank], 1));
  return [
    { ...range(A, site.site), matrix: 'A' },
    { ...range(B, site.site), matrix: 'B' },
  ];
}

function checkShape(tensor: SafetensorsTensor, rank: number, wanted: [number, number], rankAxis: 0 | 1): void {
  const { name, shape } = tensor;
  const text = `tensor ${name} is [${shape.join(', ')}]`;
  if (shape.length !== 2 || shape[1 - rankAxis] !== wanted[1 - rankAxis]) {
    throw error('SHAPE', `${text}, the base needs [${wanted.join(', ')}]`, name, { got: shape, wanted });
  }
  if (shape[rankAxis] !== rank) throw error('RANK', `${text}, adapter_config.json gives it rank ${rank}`, name);
}

function range(tensor: FoundTensor, site: number): TensorRange & { site: number } {
  const [rows, cols] = tensor.shape as [number, number];
  const { file, offset, bytes } = tensor;
  return { site, file, offset, bytes, dtype: dtypeOf(tensor), rows, cols };
}

function dtypeOf(tensor: SafetensorsTensor): DType {
  const dtype = Object.hasOwn(DTYPES, tensor.dtype) ? DTYPES[tensor.dtype] : undefined;
  if (dtype) return dtype;
  throw error(
    'DTYPE',
    `tensor ${tensor.name} is ${tensor.dtype}; supported are ${Object.keys(DTYPES).join(', ')}`,
    tensor.name,
  );
}

/** A copy of one of the base's own tensors; that it is equal is checked where the bytes are read. */
function baseTensor(tensor: FoundTensor, { module, kind }: AdapterTensorName, base: BaseFolder): SavedBaseTensor {
  const { name, shape, file, offset, bytes } = tensor;
  const layer = Number(/(?:^|\.)layers\.(\d+)\./.exec(module)?.[1] ?? -1);
  if (layer >= base.spec.layers || !base.sites.some((site) => site.name === module))
    throw surplus(tensor, module, base);
  const last = module.slice(module.lastIndexOf('.') + 1);
  // A tied head has no tensor of its own.
  const site = last === 'lm_head' && base.spec.isTied ? 'embed_tokens' : last;
  const role = (kind === 'base-bias' ? `${site}_bias` : site) as WeightRole;
  const original = base.tensors.find((candidate) => candidate.role === role && candidate.layer === layer);
  if (!original) throw error('BASE_TENSOR', `tensor ${name}: the base has no such tensor`, name);
  const { rows, cols } = original;
  const wanted = kind === 'base-bias' ? [cols] : [rows, cols];
  if (shape.length !== wanted.length || !shape.every((size, i) => size === wanted[i])) {
    throw error('BASE_TENSOR', `tensor ${name} is [${shape.join(', ')}], the base's is [${wanted.join(', ')}]`, name);
  }
  return { name, role, layer, file, offset, bytes, dtype: dtypeOf(tensor), rows, cols };
}

function error(kind: string, message: string, tensor: string, more: Record<string, unknown> = {}): OpenLoraError {
  return new OpenLoraError(`ERR_ADAPTER_${kind}`, message, { tensor, ...more });
}
