// What a family of models is: how its config.json becomes a ModelSpec and which tensors it promises. Adding a family is
// one file beside this one and a line in index.ts.

import { OpenLoraError } from '../../errors.js';
import { LAYER_SITES, MODEL_SITES, type LayerSite, type ModelSpec, type WeightRole } from '../../native/binding.js';
import type { ConfigReader } from '../config-reader.js';
import { readRope } from '../rope.js';
import type { BaseSite } from '../types.js';

/** A config that lies must not cost time before the weights contradict it. */
export const LAYERS_MAX = 512;
export const HEAD_DIM_MAX = 1024;

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

/** How one family differs from the Llama layout. Absent: as Llama has it. */
export interface LlamaLikeOptions {
  /** Of num_key_value_heads when the key is missing; null always means one for each head. */
  kvHeadsDefault?: number;
  contextDefault: number;
  /** Sites whose linear layer has a bias vector. */
  biasSites: readonly LayerSite[];
}

const ATTENTION_SITES: readonly string[] = ['q_proj', 'k_proj', 'v_proj', 'o_proj'];

/** Reads a decoder in the layout of Llama: pre-norm, rotary, grouped queries, SwiGLU. */
export function readLlamaLike(config: ConfigReader, o: LlamaLikeOptions): FamilyModel {
  const activation = config.string('hidden_act', 'silu');
  if (activation !== 'silu') throw unsupported(`hidden_act ${activation} is not supported; supported is silu`);
  const spec = readSpec(config, o);
  const sites: BaseSite[] = [];
  const tensors = new Map<string, PromisedTensor>();
  const { hidden, vocab, layers } = spec;
  tensors.set('model.embed_tokens.weight', { role: 'embed_tokens', layer: -1, shape: [vocab, hidden] });
  for (let layer = 0; layer < layers; layer++) {
    const prefix = `model.layers.${layer}`;
    tensors.set(`${prefix}.input_layernorm.weight`, { role: 'attn_norm', layer, shape: [hidden] });
    tensors.set(`${prefix}.post_attention_layernorm.weight`, { role: 'mlp_norm', layer, shape: [hidden] });
    LAYER_SITES.forEach((role, index) => {
      const [input, output] = siteSize(role, spec);
      const name = `${prefix}.${ATTENTION_SITES.includes(role) ? 'self_attn' : 'mlp'}.${role}`;
      sites.push({ name, site: layer * LAYER_SITES.length + index, in: input, out: output });
      tensors.set(`${name}.weight`, { role, layer, shape: [output, input] });
      if (o.biasSites.includes(role)) tensors.set(`${name}.bias`, { role: `${role}_bias`, layer, shape: [output] });
    });
  }
  tensors.set('model.norm.weight', { role: 'final_norm', layer: -1, shape: [hidden] });
  if (!spec.isTied) tensors.set('lm_head.weight', { role: 'lm_head', layer: -1, shape: [vocab, hidden] });
  const linearModules = sites.map(({ name }) => name);
  const firstModelSite = layers * LAYER_SITES.length;
  sites.push({ name: 'lm_head', site: firstModelSite + MODEL_SITES.indexOf('lm_head'), in: hidden, out: vocab });
  sites.push({
    name: 'model.embed_tokens',
    site: firstModelSite + MODEL_SITES.indexOf('embed_tokens'),
    in: vocab,
    out: hidden,
  });
  return {
    spec,
    tensors,
    sites,
    modules: moduleNames(sites, layers),
    linearModules,
    harmless: harmlessName(spec.isTied),
  };
}

function readSpec(config: ConfigReader, o: LlamaLikeOptions): ModelSpec {
  const hidden = config.count('hidden_size');
  const heads = config.count('num_attention_heads');
  const kvHeads = config.has('num_key_value_heads')
    ? config.count('num_key_value_heads', heads)
    : (o.kvHeadsDefault ?? heads);
  if (heads % kvHeads !== 0) throw config.fail('num_key_value_heads', kvHeads, `a divisor of ${heads} heads`);
  if (config.get('head_dim') === undefined && hidden % heads !== 0) {
    throw config.fail('hidden_size', hidden, `a multiple of ${heads} heads`);
  }
  const headDim = config.count('head_dim', hidden / heads, 1, HEAD_DIM_MAX);
  if (headDim % 2 !== 0) throw config.fail('head_dim', headDim, 'even, which rotary embeddings need');
  const positions = config.count('max_position_embeddings', o.contextDefault);
  const rope = readRope(config, headDim, positions);
  return {
    layers: config.count('num_hidden_layers', undefined, 1, LAYERS_MAX),
    hidden,
    heads,
    kvHeads,
    headDim,
    intermediate: config.count('intermediate_size'),
    vocab: config.count('vocab_size'),
    context: rope.context,
    normEps: config.positive('rms_norm_eps', 1e-6),
    attentionScale: headDim ** -0.5,
    embeddingScale: 1,
    ropeInvFreq: rope.invFreq,
    ropeFactor: rope.factor,
    isTied: config.boolean('tie_word_embeddings', false),
  };
}

/** [in, out] of a linear layer. */
function siteSize(site: LayerSite, spec: ModelSpec): [number, number] {
  const queries = spec.heads * spec.headDim;
  const keys = spec.kvHeads * spec.headDim;
  switch (site) {
    case 'q_proj':
      return [spec.hidden, queries];
    case 'k_proj':
    case 'v_proj':
      return [spec.hidden, keys];
    case 'o_proj':
      return [queries, spec.hidden];
    case 'gate_proj':
    case 'up_proj':
      return [spec.hidden, spec.intermediate];
    case 'down_proj':
      return [spec.intermediate, spec.hidden];
  }
}

/** PEFT matches patterns against containers and norms too, and refuses those that it can't wrap; so must we. */
function moduleNames(sites: BaseSite[], layers: number): string[] {
  const names = ['model', 'model.layers', 'model.norm', 'model.rotary_emb', ...sites.map(({ name }) => name)];
  for (let layer = 0; layer < layers; layer++) {
    const prefix = `model.layers.${layer}`;
    names.push(prefix, `${prefix}.self_attn`, `${prefix}.mlp`, `${prefix}.mlp.act_fn`);
    names.push(`${prefix}.input_layernorm`, `${prefix}.post_attention_layernorm`);
  }
  return names;
}

// transformers before 4.32 saved the rotary table, which the config determines.
const DERIVED = /^model\.(?:layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq$/;

function harmlessName(isTied: boolean): FamilyModel['harmless'] {
  return (name) => {
    if (DERIVED.test(name)) return 'derived';
    return isTied && name === 'lm_head.weight' ? 'tied-head' : undefined;
  };
}

/** A setting that changes what the model computes and isn't supported. */
export function unsupported(message: string): OpenLoraError {
  return new OpenLoraError('ERR_BASE_UNSUPPORTED', message);
}
