// What a family of models is: how its config.json becomes a ModelSpec and which tensors it promises. Adding a family is
// one file beside this one that fills DecoderOptions (decoder.ts), and a line in index.ts.

import { OpenLoraError } from '../../errors.js';
import type { ModelSpec, WeightRole } from '../../native/binding.js';
import type { ConfigReader } from '../config-reader.js';
import type { BaseSite } from '../types.js';

/** A tensor that a checkpoint must have. `shape` is as it is saved: vectors have one dimension. */
export interface PromisedTensor {
  role: WeightRole;
  layer: number;
  shape: number[];
}

export interface FamilyModel {
  spec: ModelSpec;
  /** Tensor name → what it is. */
  tensors: Map<string, PromisedTensor>;
  sites: BaseSite[];
  /** Names of all modules, those of the sites too, as `named_modules()` of transformers gives them: PEFT's patterns see these. */
  modules: string[];
  /** Names of modules that PEFT's `all-linear` means: every linear layer but the head. */
  linearModules: string[];
  /** Tensors that may be there and are not read, with the reason; a tied head is one only if equal in shape. */
  harmless: (name: string) => 'tied-head' | 'derived' | undefined;
}

export interface Family {
  /** `llama`, `qwen2`. */
  name: string;
  /** Values of `architectures[0]`. */
  architecture: string;
  /** `model_type`, used when `architectures` is missing. */
  modelType: string;
  /** Used by transformers when config.json leaves them out. */
  defaults: { eosToken?: number; bosToken?: number };
  /** Throws ERR_BASE_CONFIG, ERR_BASE_ROPE or ERR_BASE_UNSUPPORTED. */
  read(config: ConfigReader): FamilyModel;
}

/** A setting that changes what the model computes and isn't supported. */
export function unsupported(message: string): OpenLoraError {
  return new OpenLoraError('ERR_BASE_UNSUPPORTED', message);
}
