// The one decoder that all families are: what may differ between them, and how a config.json becomes its shape, its tensors
// and its modules. docs/models.md has the same as a table.

import { LAYER_SITES, MODEL_SITES, type LayerSite, type LayerSpec, type ModelSpec } from '../../native/binding.js';
import type { ConfigReader } from '../config-reader.js';
import { readRope, type RopeOptions, type RopeTable } from '../rope.js';
import type { BaseSite } from '../types.js';
import { unsupported, type FamilyModel, type PromisedTensor } from './family.js';

/** A config that lies must not cost time before the weights contradict it. */
const LAYERS_MAX = 512;
const HEAD_DIM_MAX = 1024;

/** Where a layer's RMS norms stand: before attention and MLP, behind them, or both. */
export type NormPlaces = 'before' | 'behind' | 'both';

/** How a family differs from Llama's layout: pre-norm, rotary, grouped queries, SwiGLU. Absent: as Llama has it. */
export interface DecoderOptions {
  contextDefault: number;
  /** Of num_key_value_heads when the key is missing; null always means one for each head. */
  kvHeadsDefault?: number;
  /** Of head_dim; default hidden_size / heads. */
  headDimDefault?: number;
  /** Of rms_norm_eps; default 1e-6. */
  normEpsDefault?: number;
  /** Of tie_word_embeddings; default false. */
  isTiedDefault?: boolean;
  /** The key that names the activation, and what the family takes when it is missing; default `hidden_act`, silu. */
  activation?: { key: string; fallback: string };
  /** Sites whose linear layer has a bias vector. */
  biasSites?: readonly LayerSite[];
  norms?: NormPlaces;
  /** What q and k are normalised over. */
  qkNorm?: ModelSpec['qkNorm'];
  /** Added to every norm's gain. */
  normOffset?: number;
  /** q, k, v are one module, and so are gate and up. */
  isFused?: boolean;
  /** Of q·k; default 1 / sqrt(head_dim). */
  attentionScale?: number;
  attentionSoftCap?: number;
  logitSoftCap?: number;
  embeddingScale?: (hidden: number) => number;
  residualScale?: number;
  logitScale?: number;
  rope?: Omit<RopeOptions, 'headDim' | 'context'>;
  /** Tables for several kinds of layers; default one, read with `rope`. */
  ropes?: (headDim: number, context: number) => RopeTable[];
  /** For each layer; default all positions, the first table. */
  layers?: (layers: number) => LayerSpec[];
}

const ACTIVATIONS: Readonly<Record<string, ModelSpec['activation']>> = {
  silu: 'silu',
  gelu_pytorch_tanh: 'gelu_tanh',
};

/** Sites of q, k, v and o: their linear layers stand in `self_attn`, the others in `mlp`. */
const ATTENTION_SITES: readonly LayerSite[] = ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'qkv_proj'];
const FUSED: readonly LayerSite[] = ['qkv_proj', 'gate_up_proj'];
const SEPARATE: readonly LayerSite[] = ['q_proj', 'k_proj', 'v_proj', 'gate_proj', 'up_proj'];

/** Throws ERR_BASE_CONFIG, ERR_BASE_ROPE or ERR_BASE_UNSUPPORTED. */
export function readDecoder(config: ConfigReader, o: DecoderOptions): FamilyModel {
  const spec = readSpec(config, o);
  const { hidden, vocab, layers } = spec;
  const sites: BaseSite[] = [];
  const tensors = new Map<string, PromisedTensor>();
  const modules = ['model', 'model.layers', 'model.norm', 'model.rotary_emb'];
  const absent = spec.isFused ? SEPARATE : FUSED;
  tensors.set('model.embed_tokens.weight', { role: 'embed_tokens', layer: -1, shape: [vocab, hidden] });
  for (let layer = 0; layer < layers; layer++) {
    const prefix = `model.layers.${layer}`;
    modules.push(prefix, ...containersOf(prefix, spec.isFused));
    for (const [name, role, size] of normsOf(spec, o.norms ?? 'before')) {
      tensors.set(`${prefix}.${name}.weight`, { role, layer, shape: [size] });
      modules.push(`${prefix}.${name}`);
    }
    LAYER_SITES.forEach((role, index) => {
      if (absent.includes(role)) return;
      const [input, output] = siteSize(role, spec);
      const name = `${prefix}.${ATTENTION_SITES.includes(role) ? 'self_attn' : 'mlp'}.${role}`;
      sites.push({ name, site: layer * LAYER_SITES.length + index, in: input, out: output });
      tensors.set(`${name}.weight`, { role, layer, shape: [output, input] });
      if (o.biasSites?.includes(role)) tensors.set(`${name}.bias`, { role: `${role}_bias`, layer, shape: [output] });
    });
  }
  tensors.set('model.norm.weight', { role: 'final_norm', layer: -1, shape: [hidden] });
  if (!spec.isTied) tensors.set('lm_head.weight', { role: 'lm_head', layer: -1, shape: [vocab, hidden] });
  const linearModules = sites.map(({ name }) => name);
  const outside = (name: (typeof MODEL_SITES)[number]) => layers * LAYER_SITES.length + MODEL_SITES.indexOf(name);
  sites.push({ name: 'lm_head', site: outside('lm_head'), in: hidden, out: vocab });
  sites.push({ name: 'model.embed_tokens', site: outside('embed_tokens'), in: vocab, out: hidden });
  modules.push(...sites.map(({ name }) => name));
  return { spec, tensors, sites, modules, linearModules, harmless: harmlessName(spec.isTied) };
}

function readSpec(config: ConfigReader, o: DecoderOptions): ModelSpec {
  const hidden = config.count('hidden_size');
  const heads = config.count('num_attention_heads');
  const kvHeads = config.has('num_key_value_heads')
    ? config.count('num_key_value_heads', heads)
    : (o.kvHeadsDefault ?? heads);
  if (heads % kvHeads !== 0) throw config.fail('num_key_value_heads', kvHeads, `a divisor of ${heads} heads`);
  const headDim = readHeadDim(config, hidden, heads, o.headDimDefault);
  const layers = config.count('num_hidden_layers', undefined, 1, LAYERS_MAX);
  const positions = config.count('max_position_embeddings', o.contextDefault);
  const ropes = o.ropes?.(headDim, positions) ?? [readRope(config, { headDim, context: positions, ...o.rope })];
  const norms = o.norms ?? 'before';
  return {
    layers,
    hidden,
    heads,
    kvHeads,
    headDim,
    intermediate: config.count('intermediate_size'),
    vocab: config.count('vocab_size'),
    context: Math.min(...ropes.map(({ context }) => context)),
    normEps: config.positive('rms_norm_eps', o.normEpsDefault ?? 1e-6),
    attentionScale: o.attentionScale ?? headDim ** -0.5,
    attentionSoftCap: o.attentionSoftCap ?? 0,
    embeddingScale: o.embeddingScale?.(hidden) ?? 1,
    residualScale: o.residualScale ?? 1,
    logitScale: o.logitScale ?? 1,
    logitSoftCap: o.logitSoftCap ?? 0,
    normOffset: o.normOffset ?? 0,
    activation: readActivation(config, o),
    qkNorm: o.qkNorm ?? 'none',
    hasPreNorms: norms !== 'behind',
    hasPostNorms: norms !== 'before',
    isFused: o.isFused ?? false,
    ropes: ropes.map(({ invFreq, longInvFreq, factor }) => ({ invFreq, longInvFreq, factor })),
    ropeSwitch: ropes[0]!.switch,
    layerOptions: o.layers?.(layers) ?? Array.from({ length: layers }, () => ({ window: 0, rope: 0 })),
    isTied: config.boolean('tie_word_embeddings', o.isTiedDefault ?? false),
  };
}

function readHeadDim(config: ConfigReader, hidden: number, heads: number, fallback: number | undefined): number {
  const isDerived = config.get('head_dim') === undefined && fallback === undefined;
  if (isDerived && hidden % heads !== 0) throw config.fail('hidden_size', hidden, `a multiple of ${heads} heads`);
  const headDim = config.count('head_dim', fallback ?? hidden / heads, 1, HEAD_DIM_MAX);
  if (headDim % 2 !== 0) throw config.fail('head_dim', headDim, 'even, which rotary embeddings need');
  return headDim;
}

function readActivation(config: ConfigReader, o: DecoderOptions): ModelSpec['activation'] {
  const { key, fallback } = o.activation ?? { key: 'hidden_act', fallback: 'silu' };
  const name = config.string(key, fallback);
  const activation = Object.hasOwn(ACTIVATIONS, name) ? ACTIVATIONS[name] : undefined;
  if (activation) return activation;
  throw unsupported(`${key} ${name} is not supported; supported are ${Object.keys(ACTIVATIONS).join(', ')}`);
}

/** Norms of one layer: module, role, size. */
function normsOf(spec: ModelSpec, places: NormPlaces): [string, PromisedTensor['role'], number][] {
  const { hidden } = spec;
  const norms: ReturnType<typeof normsOf> = [];
  if (places === 'before') {
    norms.push(['input_layernorm', 'attn_norm', hidden], ['post_attention_layernorm', 'mlp_norm', hidden]);
  } else {
    if (places === 'both') {
      norms.push(['input_layernorm', 'attn_norm', hidden], ['pre_feedforward_layernorm', 'mlp_norm', hidden]);
    }
    norms.push(['post_attention_layernorm', 'attn_post_norm', hidden]);
    norms.push(['post_feedforward_layernorm', 'mlp_post_norm', hidden]);
  }
  if (spec.qkNorm !== 'none') {
    const [heads, kvHeads] = spec.qkNorm === 'all' ? [spec.heads, spec.kvHeads] : [1, 1];
    norms.push(
      ['self_attn.q_norm', 'q_norm', heads * spec.headDim],
      ['self_attn.k_norm', 'k_norm', kvHeads * spec.headDim],
    );
  }
  return norms;
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
    case 'qkv_proj':
      return [spec.hidden, queries + 2 * keys];
    case 'o_proj':
      return [queries, spec.hidden];
    case 'gate_proj':
    case 'up_proj':
      return [spec.hidden, spec.intermediate];
    case 'gate_up_proj':
      return [spec.hidden, 2 * spec.intermediate];
    case 'down_proj':
      return [spec.intermediate, spec.hidden];
  }
}

/** PEFT matches patterns against containers and norms too, and refuses those that it can't wrap; so must we. */
function containersOf(prefix: string, isFused: boolean): string[] {
  const names = [`${prefix}.self_attn`, `${prefix}.mlp`];
  if (!isFused) return [...names, `${prefix}.mlp.act_fn`];
  return [...names, `${prefix}.mlp.activation_fn`, `${prefix}.resid_attn_dropout`, `${prefix}.resid_mlp_dropout`];
}

// transformers before 4.32 saved the rotary table, which the config determines.
const DERIVED = /^model\.(?:layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq$/;

function harmlessName(isTied: boolean): FamilyModel['harmless'] {
  return (name) => {
    if (DERIVED.test(name)) return 'derived';
    return isTied && name === 'lm_head.weight' ? 'tied-head' : undefined;
  };
}
