// adapter_config.json, as PEFT 0.4 to 0.21 writes it. What plain LoRA doesn't need is refused by its own name, never
// skipped; a key that isn't known here is harmless only when it is null, false or empty.
//
// | code                              | meaning                                                                     |
// |-----------------------------------|-----------------------------------------------------------------------------|
// | ERR_ADAPTER_CONFIG                | adapter_config.json malformed, or a key of the wrong type or out of range   |
// | ERR_ADAPTER_PEFT_TYPE             | another method than LoRA (IA3, LOHA, prompt tuning, …)                      |
// | ERR_ADAPTER_TASK                  | made for another task than causal language modelling                        |
// | ERR_ADAPTER_DORA                  | use_dora                                                                    |
// | ERR_ADAPTER_BIAS                  | bias other than none                                                        |
// | ERR_ADAPTER_LORA_BIAS             | lora_bias                                                                   |
// | ERR_ADAPTER_MODULES_TO_SAVE       | modules_to_save                                                             |
// | ERR_ADAPTER_TRAINABLE_TOKENS      | trainable_token_indices                                                     |
// | ERR_ADAPTER_TARGET_PARAMETERS     | target_parameters                                                           |
// | ERR_ADAPTER_LAYER_REPLICATION     | layer_replication                                                           |
// | ERR_ADAPTER_ALORA                 | alora_invocation_tokens or alora_invocation_string                          |
// | ERR_ADAPTER_INIT                  | an initialisation that changed the base (PiSSA, OLoRA, CorDA, LoftQ, …)     |
// | ERR_ADAPTER_WEIGHT_TYING          | ensure_weight_tying                                                         |
// | ERR_ADAPTER_VARIANT               | another variant of LoRA (QALoRA, VeLoRA, KaSA, BD-LoRA, Arrow, …)           |
// | ERR_ADAPTER_UNKNOWN_KEY           | a key that isn't known and is set                                           |
// | ERR_ADAPTER_RANK                  | a rank outside 1–256, or not the tensor's                                   |
// | ERR_ADAPTER_PATTERN               | a pattern that Python refuses, or that this matcher doesn't have            |

import type { ChatTemplateSource } from './tokenizer-types.js';
import { OpenLoraError } from '../errors.js';
import { ConfigReader } from './config-reader.js';
import { canonicalJson, isJsonObject, type JsonObject } from './json.js';

/** Largest rank that the kernels take. */
export const RANK_MAX = 256;
/** Of rank_pattern and alpha_pattern each. */
const PATTERNS_MAX = 2_048;

/** What an adapter_config.json says about plain LoRA. */
export interface LoraConfig {
  rank: number;
  alpha: number;
  /** rsLoRA: scale alpha / sqrt(rank), not alpha / rank. */
  isRankStabilized: boolean;
  /** In file order: the first that matches a module counts. */
  rankPattern: [pattern: string, rank: number][];
  alphaPattern: [pattern: string, alpha: number][];
  /** Names or suffixes; or one pattern; or `all-linear`. */
  targets: string[] | string;
  excludes: string[] | string;
  /** Undefined: all. */
  layers?: number[];
  /** Of the list that the layers are in; empty: any. */
  layersPatterns: string[];
  baseNameOrPath?: string;
}

/** Keys that can't change what the adapter computes once it is trained, whatever their value. */
const HARMLESS = new Set([
  ...['auto_mapping', 'base_model_class', 'corda_config', 'enable_lora', 'eva_config', 'fan_in_fan_out'],
  ...['inference_mode', 'loftq_config', 'lora_dropout', 'lora_ga_config', 'megatron_core', 'merge_weights'],
  ...['peft_version', 'qalora_group_size', 'revision', 'runtime_config', 'parent_library'],
]);

const READ = new Set([
  ...['peft_type', 'task_type', 'r', 'lora_alpha', 'use_rslora', 'rank_pattern', 'alpha_pattern', 'target_modules'],
  ...[
    'exclude_modules',
    'layers_to_transform',
    'layers_pattern',
    'base_model_name_or_path',
    'bias',
    'init_lora_weights',
  ],
]);

/** key → code and what the message calls it. */
const REFUSED: Readonly<Record<string, readonly [code: string, what: string]>> = {
  use_dora: ['DORA', 'DoRA'],
  lora_bias: ['LORA_BIAS', 'a bias beside lora_B'],
  modules_to_save: ['MODULES_TO_SAVE', 'a fully trained module'],
  trainable_token_indices: ['TRAINABLE_TOKENS', 'trained token rows'],
  target_parameters: ['TARGET_PARAMETERS', 'LoRA on bare parameters'],
  layer_replication: ['LAYER_REPLICATION', 'a base with repeated layers'],
  alora_invocation_tokens: ['ALORA', 'activated LoRA'],
  alora_invocation_string: ['ALORA', 'activated LoRA'],
  ensure_weight_tying: ['WEIGHT_TYING', 'an adapter shared by embedding and head'],
  use_qalora: ['VARIANT', 'QALoRA'],
  use_bdlora: ['VARIANT', 'BD-LoRA'],
  velora_config: ['VARIANT', 'VeLoRA'],
  kasa_config: ['VARIANT', 'KaSA'],
  monteclora_config: ['VARIANT', 'Monte Carlo LoRA'],
  arrow_config: ['VARIANT', 'Arrow'],
  megatron_config: ['VARIANT', 'Megatron layers'],
};

/** Initialisations that leave the base as it was. PEFT writes `true` when it converts the others to plain LoRA. */
const PLAIN_INITS = ['gaussian', 'eva', 'orthogonal', 'mica'];

/** Reads and checks an adapter_config.json. `where` names it in messages. Throws the codes above. */
export function readLoraConfig(object: JsonObject, where = 'adapter_config.json'): LoraConfig {
  const config = new ConfigReader(object, where, 'ERR_ADAPTER_CONFIG');
  const type = config.string('peft_type');
  if (type !== 'LORA') throw refused('PEFT_TYPE', `${where}: peft_type ${type} is not supported; supported is LORA`);
  const task = config.string('task_type', 'CAUSAL_LM');
  if (task !== 'CAUSAL_LM')
    throw refused('TASK', `${where}: task_type ${task} is not supported; supported is CAUSAL_LM`, 'task_type');
  for (const [key, value] of Object.entries(object)) {
    if (READ.has(key) || HARMLESS.has(key) || !isSet(value)) continue;
    const known = Object.hasOwn(REFUSED, key) ? REFUSED[key] : undefined;
    if (known) throw refused(known[0], `${where}: ${key} (${known[1]}) is not supported`, key);
    throw refused(
      'UNKNOWN_KEY',
      `${where}: ${key} is not known and is set, so it may change what the adapter computes`,
      key,
    );
  }
  const bias = config.string('bias', 'none');
  if (bias !== 'none') throw refused('BIAS', `${where}: bias ${bias} is not supported; supported is none`, 'bias');
  checkInit(config, where);
  return { ...readTargets(config), ...readScales(config, where), ...readBase(config) };
}

function checkInit(config: ConfigReader, where: string): void {
  const init = config.get('init_lora_weights') ?? true;
  if (typeof init === 'boolean' || (typeof init === 'string' && PLAIN_INITS.includes(init))) return;
  const message = `${where}: init_lora_weights ${JSON.stringify(init)} changes the base; save the adapter with path_initial_model_for_weight_conversion, which makes it plain LoRA`;
  throw refused('INIT', message, 'init_lora_weights');
}

function readScales(config: ConfigReader, where: string) {
  const pattern = (key: 'rank_pattern' | 'alpha_pattern'): [string, number][] => {
    const entries = Object.entries(config.child(key)?.object ?? {});
    if (entries.length > PATTERNS_MAX) throw config.fail(key, entries.length, `at most ${PATTERNS_MAX} patterns`);
    // Scales are float32 in the engine.
    const wrong = entries.find(([, value]) => typeof value !== 'number' || !Number.isFinite(Math.fround(value)));
    if (wrong) throw config.fail(key, { [wrong[0]]: wrong[1] }, 'a map of numbers');
    return entries as [string, number][];
  };
  const rankPattern = pattern('rank_pattern');
  const rank = config.number('r', 8);
  for (const [name, value] of [['r', rank] as const, ...rankPattern]) {
    if (!Number.isInteger(value) || value < 1 || value > RANK_MAX) {
      const message = `${where}: the rank of ${name} is ${value}, not an integer in [1, ${RANK_MAX}]`;
      throw refused('RANK', message, name === 'r' ? 'r' : 'rank_pattern');
    }
  }
  const alpha = config.number('lora_alpha', 8);
  return {
    rank,
    alpha,
    isRankStabilized: config.boolean('use_rslora', false),
    rankPattern,
    alphaPattern: pattern('alpha_pattern'),
  };
}

function readTargets(config: ConfigReader): Pick<LoraConfig, 'targets' | 'excludes' | 'layers' | 'layersPatterns'> {
  const namesOrPattern = (key: string) =>
    typeof config.get(key) === 'string' ? config.string(key) : config.strings(key);
  const targets = namesOrPattern('target_modules');
  if (targets.length === 0) throw config.fail('target_modules', config.get('target_modules'), 'names or a pattern');
  const excludes = namesOrPattern('exclude_modules');
  const patterns = config.get('layers_pattern');
  const layersPatterns =
    typeof patterns === 'string' ? [patterns].filter((text) => text !== '') : config.strings('layers_pattern');
  const layers = readLayers(config);
  // PEFT refuses both of these, too.
  if (typeof targets === 'string' && (layers || layersPatterns.length > 0)) {
    throw config.fail('target_modules', targets, 'a list, which layers_to_transform and layers_pattern need');
  }
  if (layersPatterns.length > 0 && !layers)
    throw config.fail('layers_to_transform', undefined, 'set, which layers_pattern needs');
  return { targets, excludes, layersPatterns, ...(layers ? { layers } : {}) };
}

function readLayers(config: ConfigReader): number[] | undefined {
  const value = config.get('layers_to_transform');
  if (value === undefined) return undefined;
  const list: unknown[] = Array.isArray(value) ? value : [value];
  if (!list.every((layer) => Number.isSafeInteger(layer))) {
    throw config.fail('layers_to_transform', value, 'a layer number or a list of them');
  }
  return list.length > 0 ? (list as number[]) : undefined;
}

function readBase(config: ConfigReader): Pick<LoraConfig, 'baseNameOrPath'> {
  const name = config.string('base_model_name_or_path', '');
  return name === '' ? {} : { baseNameOrPath: name };
}

/**
 * RFC 8785 text of everything that decides what the adapter computes, and of its chat templates. Patterns become lists
 * of pairs, since their order counts and RFC 8785 sorts keys; lists of names are sorted, since theirs doesn't (PEFT
 * keeps sets).
 */
export function canonicalConfig(config: LoraConfig, chat: ChatTemplateSource | undefined): Uint8Array {
  const names = (value: string[] | string) => (typeof value === 'string' ? value : [...new Set(value)].sort());
  const text = canonicalJson({
    alpha_pattern: config.alphaPattern,
    chat: chat === undefined ? null : { ...chat },
    exclude_modules: names(config.excludes),
    layers_pattern: config.layersPatterns,
    layers_to_transform: config.layers ? [...new Set(config.layers)].sort((a, b) => a - b) : null,
    lora_alpha: config.alpha,
    peft_type: 'LORA',
    r: config.rank,
    rank_pattern: config.rankPattern,
    target_modules: names(config.targets),
    use_rslora: config.isRankStabilized,
  });
  return new TextEncoder().encode(text);
}

/** Not null, false, empty or 0. */
function isSet(value: unknown): boolean {
  if (Array.isArray(value)) return value.length > 0;
  if (isJsonObject(value)) return Object.keys(value).length > 0;
  return Boolean(value);
}

function refused(kind: string, message: string, key?: string): OpenLoraError {
  return new OpenLoraError(`ERR_ADAPTER_${kind}`, message, key === undefined ? {} : { key });
}
