// What the readers of src/formats give to the SDK. No JSON and no file name of the Hugging Face world goes further.

import type { ChatTemplateSource } from './tokenizer-types.js';
import type { AdapterSite, AdapterTensor, BaseTensor, DType, ModelSpec } from '../native/binding.js';

/** A linear module (or the embedding) that an adapter can act on. */
export interface BaseSite {
  /** Module name as PEFT sees it, without `base_model.model.`: `model.layers.0.self_attn.q_proj`, `lm_head`. */
  name: string;
  /** Site number, as src/native/binding.ts counts them. */
  site: number;
  /** Input width; the vocabulary for `embed_tokens`. */
  in: number;
  /** Output width; the vocabulary for `lm_head`. */
  out: number;
}

/** Sampling defaults of generation_config.json; a field that the file leaves out is left out here. */
export interface GenerationDefaults {
  doSample?: boolean;
  temperature?: number;
  topK?: number;
  topP?: number;
  minP?: number;
  /** Applies to greedy answers, too. */
  repetitionPenalty?: number;
}

/** A checked base folder: everything that `NativeAddon.open` needs but the tokens' bytes. */
export interface BaseFolder {
  /** Absolute path of the folder. */
  path: string;
  /** Short name of the family: `llama`, `qwen2`. */
  family: string;
  spec: ModelSpec;
  /** Absolute paths of the safetensors files. */
  files: string[];
  tensors: BaseTensor[];
  /** What config.json's `dtype` or `torch_dtype` names, else that of most of the weights' bytes. */
  sourceDtype: DType;
  /** Elements of all tensors; a tied head counts once. */
  parameters: number;
  sites: BaseSite[];
  /** Names of all modules, as transformers' `named_modules()` gives them: PEFT's patterns are matched against these. */
  modules: string[];
  /** What PEFT's `all-linear` means: every linear layer but the head. */
  linearModules: string[];
  generation: GenerationDefaults;
  /** What its files ask for and nothing here does. */
  warnings: FormatWarning[];
  /** From generation_config.json, else config.json. */
  eosTokens: number[];
  bosToken?: number;
  /** `_name_or_path` of config.json, which newer checkpoints leave out. */
  nameOrPath?: string;
  /** config.json as parsed. */
  config: Readonly<Record<string, unknown>>;
}

export interface FormatWarning {
  code: string;
  message: string;
}

/** What is known of an adapter from its files. */
export interface AdapterDescription {
  rank: { min: number; max: number };
  /** Module names, without `base_model.model.`, in the order of their site numbers. */
  sites: string[];
  /** Elements of all A and B matrices. */
  parameters: number;
  /** Bytes of the A and B matrices as they were saved. */
  bytes: number;
  warnings: FormatWarning[];
  /** The adapter's own chat templates, if it has any. */
  chat?: ChatTemplateSource;
}

/** A base tensor that PEFT saved along, by its name in the file. */
export interface SavedBaseTensor extends BaseTensor {
  name: string;
}

/** What of an adapter is read where. */
export interface AdapterManifest {
  /** Absolute paths of the safetensors files. */
  files: string[];
  /** Of each file, as it was when its tensors were found: {@link ReadHeader}. */
  headerDigests: string[];
  tensors: AdapterTensor[];
  sites: AdapterSite[];
  baseTensors: SavedBaseTensor[];
  /** Canonical config and whatever else the generation covers. */
  canonicalConfig: Uint8Array;
}

/** A checked adapter folder: everything that `NativeEngine.registerAdapter` needs but the handle. */
export interface AdapterFolder {
  spec: AdapterManifest;
  info: AdapterDescription;
}
