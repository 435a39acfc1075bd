// Adapters that registerAdapter or their first request has to refuse.

import { chmodSync, renameSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { BadInput, Stage } from './bad-input.js';
import {
  ADAPTER_WEIGHTS as WEIGHTS,
  asBf16,
  copyOf,
  FILE_DAMAGE,
  newFolder,
  patch,
  put,
  putFolder,
  rewritten,
  withTensors,
  withValue,
} from './damage.js';
import { FIRST_BYTE, writeAdapter } from './tiny-checkpoint.js';

const CONFIG = 'adapter_config.json';
const Q0 = 'base_model.model.model.layers.0.self_attn.q_proj';

let adapters = 0;
const freshId = () => `bad-${++adapters}`;

/** Registers the folder that `make` gives, of a copy of a good one. */
const registers =
  (make: (folder: string, stage: Stage) => string) =>
  (stage: Stage): Promise<unknown> =>
    stage.base.registerAdapter(freshId(), make(stage.files.adapters[1]!, stage));

const weights = (change: (file: Buffer) => Buffer) => registers((folder) => rewritten(folder, WEIGHTS, change));
const config = (changes: Record<string, unknown>) => registers((folder) => patch(copyOf(folder), CONFIG, changes));
const file = (name: string, content: string | Buffer | object | undefined) =>
  registers((folder) => put(copyOf(folder), name, content));

/** Registers a good adapter, does something to its folder, and asks for it. */
const asksAfter = (act: (folder: string, stage: Stage) => void) => async (stage: Stage) => {
  const folder = copyOf(stage.files.adapters[1]!);
  const id = freshId();
  await stage.base.registerAdapter(id, folder);
  act(folder, stage);
  try {
    await stage.base.generate({ prompt: 'hi', adapter: id, maxTokens: 4 }).result;
  } finally {
    await stage.base.unregisterAdapter(id);
  }
};

const zeros = (...shape: number[]) => ({ shape, data: Buffer.alloc(4 * shape.reduce((a, b) => a * b, 1)) });

const CONTENT: BadInput[] = [
  ['NaN at the beginning of an A', 'NOT_FINITE', /NaN|finite/i, weights(withValue(/lora_A/, 'first', NaN))],
  ['NaN at the end of a B', 'NOT_FINITE', /NaN|finite/i, weights(withValue(/1.mlp.down_proj.lora_B/, 'last', NaN))],
  ['infinity in a B', 'NOT_FINITE', /Inf|finite/i, weights(withValue(/lora_B/, 'first', Infinity))],
  ['minus infinity in an A', 'NOT_FINITE', /Inf|finite/i, weights(withValue(/v_proj.lora_A/, 'last', -Infinity))],
  ['NaN in bfloat16', 'NOT_FINITE', /NaN|finite/i, weights((bytes) => asBf16(bytes, -1, 0x7fc0))],
  ['infinity in bfloat16', 'NOT_FINITE', /Inf|finite/i, weights((bytes) => asBf16(bytes, 0, 0xff80))],
  ['no tensor at all', 'TENSOR_MISSING', /q_proj.*has no tensors/, weights(withTensors((t) => Object.keys(t).forEach((name) => delete t[name])))],
  ['a pair that is missing', 'TENSOR_MISSING', /layers\.0.*q_proj.*has no tensors/, weights(withTensors((t) => { delete t[`${Q0}.lora_A.weight`]; delete t[`${Q0}.lora_B.weight`]; }))],
  ['A without B', 'HALF_PAIR', /q_proj has A without B/, weights(withTensors((t) => delete t[`${Q0}.lora_B.weight`]))],
  ['B without A', 'HALF_PAIR', /q_proj has B without A/, weights(withTensors((t) => delete t[`${Q0}.lora_A.weight`]))],
  ['a module that is not targeted', 'TENSOR_SURPLUS', /k_proj/, weights(withTensors((t) => (t[Q0.replace('q_', 'k_') + '.lora_A.weight'] = zeros(3, 32))))],
  ['a tensor that is no LoRA', 'TENSOR_SURPLUS', /optimizer\.state/, weights(withTensors((t) => (t['optimizer.state'] = zeros(4))))],
  ['a layer that the base does not have', 'LAYER', /layer 2.*0 to 1/, weights(withTensors((t) => (t[Q0.replace('.0.', '.2.') + '.lora_A.weight'] = zeros(3, 32))))],
  ['a transposed A', 'SHAPE', /\[32, 3\].*\[3, 32\]/, weights(withTensors((t) => t[`${Q0}.lora_A.weight`]!.shape.reverse()))],
  ['an A of another width', 'SHAPE', /\[3, 64\].*\[3, 32\]/, weights(withTensors((t) => (t[`${Q0}.lora_A.weight`] = zeros(3, 64))))],
  ['an A of three dimensions', 'SHAPE', /\[3, 32, 1\].*\[3, 32\]/, weights(withTensors((t) => t[`${Q0}.lora_A.weight`]!.shape.push(1)))],
  ['a rank that the config does not say', 'RANK', /\[4, 32\].*rank 3/, weights(withTensors((t) => (t[`${Q0}.lora_A.weight`] = zeros(4, 32))))],
  ['integers', 'DTYPE', /I32.*F32, F16, BF16/, weights((bytes) => Buffer.from(bytes.toString('latin1').replace('"dtype":"F32"', '"dtype":"I32"'), 'latin1'))],
  ["DoRA's magnitudes", 'DORA', /magnitude/, weights(withTensors((t) => (t[`${Q0}.lora_magnitude_vector`] = zeros(32))))],
  ['a trained bias', 'BIAS', /bias/, weights(withTensors((t) => (t[`${Q0}.bias`] = zeros(32))))],
  ['a bias of lora_B', 'LORA_BIAS', /lora_B\.bias/, weights(withTensors((t) => (t[`${Q0}.lora_B.bias`] = zeros(32))))],
  ['a saved module', 'MODULES_TO_SAVE', /modules_to_save/, weights(withTensors((t) => (t['base_model.model.lm_head.modules_to_save.weight'] = zeros(260, 32))))],
  ['trained token rows', 'TRAINABLE_TOKENS', /token rows/, weights(withTensors((t) => (t['base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta'] = zeros(1, 32))))],
  ['a base tensor of another shape', 'BASE_TENSOR', /\[16, 32\].*\[32, 32\]/, weights(withTensors((t) => (t[`${Q0}.base_layer.weight`] = zeros(16, 32))))],
  ['a base tensor of other values', 'BASE_TENSOR', /differ/, weights(withTensors((t) => (t[`${Q0}.base_layer.weight`] = zeros(32, 32))))],
  ['a base tensor that the base lacks', 'BASE_TENSOR', /no such tensor/, weights(withTensors((t) => (t[`${Q0}.base_layer.bias`] = zeros(32))))],
]; // prettier-ignore

const CONFIGS: BadInput[] = [
  ['IA3', 'PEFT_TYPE', /peft_type IA3 .*supported is LORA/, config({ peft_type: 'IA3' })],
  ['no method', 'CONFIG', /peft_type is missing, not a string/, config({ peft_type: undefined })],
  ['a classifier', 'TASK', /SEQ_CLS.*CAUSAL_LM/, config({ task_type: 'SEQ_CLS' })],
  ['DoRA', 'DORA', /use_dora/, config({ use_dora: true })],
  ['bias: all', 'BIAS', /bias all .*none/, config({ bias: 'all' })],
  ['bias: lora_only', 'BIAS', /lora_only.*none/, config({ bias: 'lora_only' })],
  ['lora_bias', 'LORA_BIAS', /lora_bias/, config({ lora_bias: true })],
  ['modules_to_save', 'MODULES_TO_SAVE', /modules_to_save/, config({ modules_to_save: ['lm_head'] })],
  ['trainable_token_indices', 'TRAINABLE_TOKENS', /trainable_token/, config({ trainable_token_indices: [1] })],
  ['target_parameters', 'TARGET_PARAMETERS', /target_parameters/, config({ target_parameters: ['x'] })],
  ['layer_replication', 'LAYER_REPLICATION', /layer_replication/, config({ layer_replication: [[0, 1]] })],
  ['aLoRA by tokens', 'ALORA', /alora_invocation_tokens/, config({ alora_invocation_tokens: [1] })],
  ['aLoRA by text', 'ALORA', /alora_invocation_string/, config({ alora_invocation_string: 'now' })],
  ...['pissa', 'pissa_niter_4', 'olora', 'corda', 'loftq', 'lora_ga'].map(
    (init): BadInput => [`init ${init}`, 'INIT', new RegExp(init), config({ init_lora_weights: init })],
  ),
  ['tied adapters', 'WEIGHT_TYING', /ensure_weight_tying/, config({ ensure_weight_tying: true })],
  ['QALoRA', 'VARIANT', /QALoRA/, config({ use_qalora: true })],
  ['BD-LoRA', 'VARIANT', /BD-LoRA/, config({ use_bdlora: { nblocks: 2 } })],
  ['VeLoRA', 'VARIANT', /VeLoRA/, config({ velora_config: { scale: 1 } })],
  ['KaSA', 'VARIANT', /KaSA/, config({ kasa_config: { beta: 1 } })],
  ['Monte Carlo LoRA', 'VARIANT', /Monte Carlo/, config({ monteclora_config: { n: 8 } })],
  ['Arrow', 'VARIANT', /Arrow/, config({ arrow_config: { top_k: 3 } })],
  ['Megatron layers', 'VARIANT', /Megatron/, config({ megatron_config: { a: 1 } })],
  ['a key from the future', 'UNKNOWN_KEY', /use_magic/, config({ use_magic: true })],
  ['a rank of 0', 'RANK', /r is 0, not an integer in \[1, 256\]/, config({ r: 0 })],
  ['a rank of 257', 'RANK', /r is 257/, config({ r: 257 })],
  ['a rank of 2^60', 'RANK', /r is 1152921504606847000/, config({ r: 2 ** 60 })],
  ['a negative rank', 'RANK', /r is -3/, config({ r: -3 })],
  ['a rank that is text', 'CONFIG', /r is "3", not a number/, config({ r: '3' })],
  ['an alpha over float32', 'CONFIG', /lora_alpha is 1e\+300, not a float32/, config({ lora_alpha: 1e300 })],
  ['an alpha pattern that is text', 'CONFIG', /alpha_pattern/, config({ alpha_pattern: { q_proj: 'x' } })],
  ['targets that are numbers', 'CONFIG', /target_modules.*a list of strings/, config({ target_modules: [1] })],
  ['no targets', 'CONFIG', /target_modules/, config({ target_modules: [] })],
  ['targets of another model', 'TARGETS', /c_attn.*names no module/, config({ target_modules: ['c_attn'] })],
  ['a norm as its target', 'TARGETS', /norm.*not a linear/, config({ target_modules: ['q_proj', 'norm'] })],
  ['a layer outside the base', 'LAYER', /layer 9.*0 to 1/, config({ layers_to_transform: [0, 9] })],
  ['a pattern that Python refuses', 'PATTERN', /q_proj\(/, config({ target_modules: 'q_proj(' })],
  ['a pattern that never ends elsewhere', 'TARGETS', /names no module/, config({ target_modules: '(.*)*x(.*)*y(.*)*z' })],
]; // prettier-ignore

const FOLDERS: BadInput[] = [
  ['no such folder', 'FILES', /nowhere is not a folder/, registers(() => '/nowhere')],
  ['a file in place of a folder', 'FILES', /is not a folder/, registers((folder) => join(folder, WEIGHTS))],
  ['an empty folder', 'FILES', /has no adapter_config\.json/, registers(() => newFolder())],
  ['a base', 'FILES', /has no adapter_config\.json/, registers((_, { files }) => files.base)],
  ['a config that is a folder', 'CONFIG', /adapter_config\.json can't be read/, registers((folder) => putFolder(copyOf(folder), CONFIG))],
  ['a config that is no JSON', 'CONFIG', /not JSON/, file(CONFIG, '{"r": NaN}')],
  ['a config that is a list', 'CONFIG', /not a JSON object/, file(CONFIG, [])],
  ['an empty config', 'CONFIG', /not JSON/, file(CONFIG, '')],
  ['no weights', 'FILES', /has no adapter_model\.safetensors/, file(WEIGHTS, undefined)],
  ['weights that are a folder', 'FILES', /can't be read/, registers((folder) => putFolder(copyOf(folder), WEIGHTS))],
  ['a pickle alone', 'BIN', /adapter_model\.bin.*save them as adapter_model\.safetensors/, registers((folder) => put(put(copyOf(folder), WEIGHTS, undefined), 'adapter_model.bin', 'PK'))],
  ['a tokenizer that is no JSON', 'TOKENIZER', /tokenizer\.json/, file('tokenizer.json', '{"added_tokens": [')],
  ['a tokenizer config that is no JSON', 'TOKENIZER', /tokenizer_config\.json/, file('tokenizer_config.json', '{"chat_template": ')],
  ['a token that the base lacks', 'VOCABULARY', /<new>.*300.*has 259/, file('tokenizer.json', { added_tokens: [{ id: 300, content: '<new>' }] })],
  ['a token in a padded row of the embedding', 'VOCABULARY', /<new>.*259.*has 259/, file('added_tokens.json', { '<new>': FIRST_BYTE + 256 })],
  ['the adapter of another base', 'SHAPE', /the base needs/, registers((_, { otherAdapter }) => otherAdapter)],
]; // prettier-ignore

const NAMED = { base_model_name_or_path: 'org/other' };
const CHANGES: BadInput[] = [
  ['another base by name, with strictBase', 'BASE_NAME', /org\/other.*base/, async ({ strict, files }) =>
    strict.base.registerAdapter(freshId(), patch(copyOf(files.adapters[1]!), CONFIG, NAMED)), 'strict'],
  ['a folder that is removed before its first use', 'CHANGED', /adapter_model\.safetensors/, asksAfter((folder) => rmSync(folder, { recursive: true }))],
  ['weights that are another folder now', 'CHANGED', /adapter_model\.safetensors/, asksAfter((folder) => putFolder(folder, WEIGHTS))],
  ['a file that is cut before its first use', 'CHANGED', /adapter_model\.safetensors/, asksAfter((folder) => truncateSync(join(folder, WEIGHTS), 2000))],
  ['a file that grew before its first use', 'CHANGED', /adapter_model\.safetensors/, asksAfter((folder) => writeFileSync(join(folder, WEIGHTS), 'x', { flag: 'a' }))],
  ['another adapter in its place before its first use', 'CHANGED', /adapter_model\.safetensors/, asksAfter((folder) => writeAdapter(folder, 3, 999))],
  ['one value changed before its first use', 'CHANGED', /adapter_model\.safetensors/, asksAfter((folder) => {
    const other = rewritten(folder, WEIGHTS, withValue(/down_proj.lora_B/, 'last', 0.125));
    renameSync(join(other, WEIGHTS), join(folder, WEIGHTS));
  })],
  ['NaN before its first use', 'CHANGED', /adapter_model\.safetensors/, asksAfter((folder) => {
    const other = rewritten(folder, WEIGHTS, withValue(/down_proj.lora_B/, 'last', NaN));
    renameSync(join(other, WEIGHTS), join(folder, WEIGHTS));
  })],
]; // prettier-ignore

const coded = ([name, kind, ...rest]: BadInput): BadInput => [name, `ERR_ADAPTER_${kind}`, ...rest];

export const BAD_ADAPTERS: BadInput[] = [
  ...FILE_DAMAGE.map(([name, kind, says, change]): BadInput => [
    name,
    `ERR_SAFETENSORS_${kind}`,
    says,
    weights(change),
  ]),
  ...[...CONTENT, ...CONFIGS, ...FOLDERS, ...CHANGES].map(coded),
];

/** Root reads everything. */
export const UNREADABLE: BadInput[] = [
  ['unreadable weights', 'ERR_ADAPTER_FILES', /EACCES/, registers((folder) => {
    const copy = copyOf(folder);
    chmodSync(join(copy, WEIGHTS), 0);
    return copy;
  })],
  ['an unreadable config', 'ERR_ADAPTER_CONFIG', /EACCES/, registers((folder) => {
    const copy = copyOf(folder);
    chmodSync(join(copy, CONFIG), 0);
    return copy;
  })],
]; // prettier-ignore

export const LARGE_RANK = 256;
export const LARGE_TARGETS = ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj', 'lm_head'];
