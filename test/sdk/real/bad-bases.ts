// Checkpoints and options that loadBase has to refuse.

import { join } from 'node:path';
import { readFileSync } from 'node:fs';
import { loadBase, type LoadBaseOptions } from '../../../src/index.js';
import type { BadInput, Stage } from './bad-input.js';
import {
  BASE_WEIGHTS as WEIGHTS,
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

const LIMITS = { deviceMemory: '4MiB' };

/** Whatever loads in spite of it all is freed. */
async function load(options: unknown): Promise<void> {
  const base = await loadBase(options as LoadBaseOptions);
  await base.dispose();
}

const loads = (make: (folder: string, stage: Stage) => string) => (stage: Stage) =>
  load({ path: make(stage.files.base, stage), limits: LIMITS });
const weights = (change: (file: Buffer) => Buffer) => loads((folder) => rewritten(folder, WEIGHTS, change));
const json = (name: string, changes: Record<string, unknown>) =>
  loads((folder) => patch(copyOf(folder), name, changes));
const config = (changes: Record<string, unknown>) => json('config.json', changes);
const generation = (changes: Record<string, unknown>) => json('generation_config.json', changes);
const file = (name: string, content: string | Buffer | object | undefined) =>
  loads((folder) => put(copyOf(folder), name, content));
const options = (changes: Record<string, unknown>) => (stage: Stage) => load({ path: stage.files.base, ...changes });
const limits = (changes: Record<string, unknown>) => options({ limits: changes });

const Q0 = 'model.layers.0.self_attn.q_proj.weight';
const INDEX = 'model.safetensors.index.json';
const zeros = (...shape: number[]) => ({ shape, data: Buffer.alloc(4 * shape.reduce((a, b) => a * b, 1)) });

/** The weights under another name, with an index that `map` gives for the names of the tensors. */
const indexed = (index: (names: string[]) => unknown) =>
  loads((folder) => {
    const copy = copyOf(folder);
    const bytes = readFileSync(join(copy, WEIGHTS));
    const header = JSON.parse(bytes.toString('utf8', 8, 8 + Number(bytes.readBigUInt64LE()))) as object;
    put(copy, WEIGHTS, undefined);
    put(copy, 'part-1.safetensors', bytes);
    const made = index(Object.keys(header).filter((name) => name !== '__metadata__'));
    return put(copy, INDEX, typeof made === 'string' ? made : (made as object));
  });
const mapTo = (names: string[], name: string) => Object.fromEntries(names.map((tensor) => [tensor, name]));

const tokenizer = (change: (json: { model: Record<string, unknown>; [key: string]: unknown }) => void) =>
  loads((folder) => {
    const copy = copyOf(folder);
    const made = JSON.parse(readFileSync(join(copy, 'tokenizer.json'), 'utf8')) as Parameters<typeof change>[0];
    change(made);
    return put(copy, 'tokenizer.json', made);
  });

const FOLDERS: BadInput[] = [
  ['no such folder', 'BASE_NOT_FOUND', /nowhere has no config\.json/, loads(() => '/nowhere')],
  ['a file in place of a folder', 'BASE_NOT_FOUND', /has no config\.json/, loads((folder) => join(folder, WEIGHTS))],
  ['an empty folder', 'BASE_NOT_FOUND', /has no config\.json/, loads(() => newFolder())],
  ['an adapter', 'BASE_NOT_FOUND', /has no config\.json/, loads((_, { files }) => files.adapters[0]!)],
  ['no weights', 'BASE_FILES', /neither model\.safetensors nor/, file(WEIGHTS, undefined)],
  ['weights that are a folder', 'BASE_FILES', /can't be read/, loads((folder) => putFolder(copyOf(folder), WEIGHTS))],
  ['pickles alone', 'BASE_FILES', /pytorch_model\.bin is not supported/, loads((folder) => put(put(copyOf(folder), WEIGHTS, undefined), 'pytorch_model.bin', 'PK'))],
  ['an index that is no JSON', 'BASE_INDEX', /not JSON/, indexed(() => '{')],
  ['an index without a map', 'BASE_INDEX', /weight_map is not a map/, indexed(() => ({}))],
  ['an index of nothing', 'BASE_INDEX', /weight_map is empty/, indexed(() => ({ weight_map: {} }))],
  ['an index that leaves the folder', 'BASE_INDEX', /\.\.\/x.*not a file beside it/, indexed((names) => ({ weight_map: mapTo(names, '../x') }))],
  ['an index of a file that is missing', 'BASE_FILES', /part-2.*isn't there/, indexed((names) => ({ weight_map: { ...mapTo(names, 'part-1.safetensors'), x: 'part-2.safetensors' } }))],
  ['an index that names one tensor more', 'BASE_INDEX', /the tensor x,/, indexed((names) => ({ weight_map: mapTo([...names, 'x'], 'part-1.safetensors') }))],
  ['an index that names one tensor less', 'BASE_INDEX', /is in part-1.*is none/, indexed((names) => ({ weight_map: mapTo(names.slice(1), 'part-1.safetensors') }))],
  ['a tensor that is missing', 'BASE_TENSOR_MISSING', /q_proj\.weight is missing/, weights(withTensors((t) => delete t[Q0]))],
  ['a tensor too many', 'BASE_TENSOR_SURPLUS', /surplus is not part/, weights(withTensors((t) => (t.surplus = zeros(2, 2))))],
  ['a tensor of another shape', 'BASE_TENSOR_SHAPE', /q_proj\.weight is \[16, 32\].*\[32, 32\]/, weights(withTensors((t) => (t[Q0] = zeros(16, 32))))],
  ['integers', 'BASE_TENSOR_DTYPE', /I32.*F32, F16, BF16/, weights((bytes) => Buffer.from(bytes.toString('latin1').replace('"dtype":"F32"', '"dtype":"I32"'), 'latin1'))],
]; // prettier-ignore

const CONFIGS: BadInput[] = [
  ['a config that is no JSON', 'BASE_CONFIG', /config\.json is not JSON/, file('config.json', '{"hidden_size": 32')],
  ['a config that is a list', 'BASE_CONFIG', /not a JSON object/, file('config.json', [])],
  ['a config that is a folder', 'BASE_CONFIG', /config\.json can't be read/, loads((folder) => putFolder(copyOf(folder), 'config.json'))],
  ['no hidden_size', 'BASE_CONFIG', /hidden_size is missing, not an integer/, config({ hidden_size: undefined })],
  ['hidden_size 0', 'BASE_CONFIG', /hidden_size is 0, not an integer in/, config({ hidden_size: 0 })],
  ['hidden_size -32', 'BASE_CONFIG', /hidden_size is -32/, config({ hidden_size: -32 })],
  ['hidden_size 2^60', 'BASE_CONFIG', /hidden_size is 1152921504606847000/, config({ hidden_size: 2 ** 60 })],
  ['hidden_size as text', 'BASE_CONFIG', /hidden_size is "32"/, config({ hidden_size: '32' })],
  ['another vocab_size', 'BASE_TENSOR_SHAPE', /\[260, 32\].*\[261, 32\]/, config({ vocab_size: 261 })],
  ['a layer more', 'BASE_TENSOR_MISSING', /layers\.2\..* is missing/, config({ num_hidden_layers: 3 })],
  ['a layer less', 'BASE_TENSOR_SURPLUS', /layers\.1\..* is not part/, config({ num_hidden_layers: 1 })],
  ['heads that do not divide', 'BASE_CONFIG', /num_key_value_heads/, config({ num_key_value_heads: 3 })],
  ['an epsilon of text', 'BASE_CONFIG', /rms_norm_eps/, config({ rms_norm_eps: 'small' })],
  ['an architecture of tomorrow', 'BASE_ARCHITECTURE', /MambaForCausalLM.*supported are/, config({ architectures: ['MambaForCausalLM'], model_type: 'mamba' })],
  ['a quantised checkpoint', 'BASE_QUANTIZED', /quantization_config \(gptq\)/, config({ quantization_config: { quant_method: 'gptq' } })],
  ['another activation', 'BASE_UNSUPPORTED', /gelu/, config({ hidden_act: 'gelu' })],
  ['a rope of tomorrow', 'BASE_ROPE', /spiral/, config({ rope_scaling: { rope_type: 'spiral', factor: 2 } })],
  ['a rope without its factor', 'BASE_CONFIG', /factor is missing/, config({ rope_scaling: { rope_type: 'linear' } })],
  ['a generation config that is no JSON', 'BASE_CONFIG', /generation_config\.json is not JSON/, file('generation_config.json', '{')],
  ['a default temperature of text', 'BASE_CONFIG', /generation_config.*temperature is "hot", not a number/, generation({ temperature: 'hot' })],
  ['a default temperature below 0', 'BASE_CONFIG', /generation_config.*temperature is -1, not a number from 0 to 100/, generation({ temperature: -1 })],
  ['a default top_p of 7', 'BASE_CONFIG', /generation_config.*top_p is 7, not a number above 0, at most 1/, generation({ top_p: 7 })],
  ['a default top_k of 1.5', 'BASE_CONFIG', /generation_config.*top_k is 1\.5, not an integer/, generation({ top_k: 1.5 })],
  ['a default min_p of -1', 'BASE_CONFIG', /generation_config.*min_p is -1, not a number from 0 to 1/, generation({ min_p: -1 })],
  ['an EOS of text', 'BASE_CONFIG', /eos_token_id is "<\/s>", not a token id/, generation({ eos_token_id: '</s>' })],
]; // prettier-ignore

const TOKENIZERS: BadInput[] = [
  ['no tokenizer', 'TOKENIZER_MISSING', /has no tokenizer\.json/, file('tokenizer.json', undefined)],
  ['a tokenizer that is a folder', 'TOKENIZER_MISSING', /tokenizer\.json can't be read/, loads((folder) => putFolder(copyOf(folder), 'tokenizer.json'))],
  ['a tokenizer that is no JSON', 'TOKENIZER_UNSUPPORTED', /tokenizer\.json: the file is not JSON/, file('tokenizer.json', '{"model": ')],
  ['a tokenizer that is a list', 'TOKENIZER_UNSUPPORTED', /wanted an object/, file('tokenizer.json', [])],
  ['a tokenizer without a model', 'TOKENIZER_UNSUPPORTED', /model is missing, wanted an object/, file('tokenizer.json', {})],
  ['a unigram', 'TOKENIZER_UNSUPPORTED', /model\.type is "Unigram", supported: "BPE"/, tokenizer(({ model }) => (model.type = 'Unigram'))],
  ['a token id of 2^60', 'TOKENIZER_UNSUPPORTED', /has id 1152921504606847000, wanted an integer/, tokenizer(({ model }) => ((model.vocab as Record<string, number>).a = 2 ** 60))],
  ['a token id of -1', 'TOKENIZER_UNSUPPORTED', /has id -1/, tokenizer(({ model }) => ((model.vocab as Record<string, number>).a = -1))],
  ['merges that are no pairs', 'TOKENIZER_UNSUPPORTED', /model\.merges\[0\].*wanted a pair/, tokenizer(({ model }) => (model.merges = ['abc']))],
  ['a merge of tokens that it lacks', 'TOKENIZER_UNSUPPORTED', /merges/, tokenizer(({ model }) => (model.merges = ['no where']))],
  ['a normalizer of tomorrow', 'TOKENIZER_UNSUPPORTED', /normalizer is Quantum/, tokenizer((made) => (made.normalizer = { type: 'Quantum' }))],
  ['a pattern that is none', 'TOKENIZER_UNSUPPORTED', /\(/, tokenizer((made) => (made.pre_tokenizer = { type: 'Split', pattern: { Regex: '(' }, behavior: 'Isolated', invert: false }))],
  ['a tokenizer config that is no JSON', 'TOKENIZER_UNSUPPORTED', /tokenizer_config\.json/, file('tokenizer_config.json', '{')],
]; // prettier-ignore

const OPTIONS: BadInput[] = [
  ['no options', 'INVALID_OPTION', /loadBase: got undefined, wanted an object/, () => load(undefined)],
  ['no path', 'INVALID_OPTION', /path: got undefined, wanted a string/, () => load({})],
  ['an empty path', 'INVALID_OPTION', /path: got "", wanted a string/, () => load({ path: '' })],
  ['a path with a null byte', 'INVALID_OPTION', /path: got ".*", wanted/, () => load({ path: '/tmp/\u0000x' })],
  ['an unknown option', 'UNKNOWN_OPTION', /"thread" is unknown; did you mean 'threads'/, options({ thread: 2 })],
  ['an unknown limit', 'UNKNOWN_OPTION', /"maxBatch" is unknown/, limits({ maxBatch: 2 })],
  ['a device that is not there', 'CUDA_DRIVER', /cuda:999/, options({ device: 'cuda:999' })],
  ['a device that is none', 'INVALID_OPTION', /device: got "tpu", wanted one of/, options({ device: 'tpu' })],
  ['a dtype that is none', 'INVALID_OPTION', /dtype: got "f8", wanted one of/, options({ dtype: 'f8' })],
  ['a SIMD level of another processor', 'SIMD_LEVEL', /neon|avx/, options({ simd: process.arch === 'arm64' ? 'avx2' : 'neon' })],
  ...[0, -1, 1.5, NaN, Infinity, 2 ** 60, '2'].map((threads): BadInput => [`${String(threads)} threads`, 'INVALID_OPTION', /threads: got .*, wanted an integer from 1 to 1024/, options({ threads })]),
  ...[0, -1, 1.5, NaN, 2 ** 60, '64'].map((value): BadInput => [`maxContext ${value}`, 'INVALID_OPTION', /limits\.maxContext: got .*, wanted an integer/, limits({ maxContext: value })]),
  ['a maxContext over the checkpoint', 'INVALID_OPTION', /maxContext: got 4097, wanted at most 4096/, limits({ maxContext: 4097 })],
  ...[-1, NaN, 600_001, 2 ** 60, '1'].map((value): BadInput => [`maxStepMs ${value}`, 'INVALID_OPTION', /limits\.maxStepMs: got .*, wanted an integer/, limits({ maxStepMs: value })]),
  ...[0, -1, NaN, 65_537, 2 ** 60].map((value): BadInput => [`maxBatchTokens ${value}`, 'INVALID_OPTION', /limits\.maxBatchTokens: got .*, wanted an integer/, limits({ maxBatchTokens: value })]),
  ...[0, -1, NaN, 2 ** 60].map((value): BadInput => [`maxQueued ${value}`, 'INVALID_OPTION', /limits\.maxQueued: got .*, wanted an integer/, limits({ maxQueued: value })]),
  ...[0, -1, 1.5, NaN, Infinity, 2 ** 60, '-1MiB', 'lots', '1e9', '1KiB', '9999TiB'].map((value): BadInput => [`deviceMemory ${value}`, 'INVALID_OPTION', /limits\.deviceMemory: got .*, wanted/, limits({ deviceMemory: value })]),
  ['a context that the pool does not hold', 'LIMITS', /4096|context/, limits({ deviceMemory: '1MiB', maxContext: 4096 })],
  ['a signal that is none', 'INVALID_OPTION', /signal: got .*, wanted an AbortSignal/, options({ signal: {} })],
  ['a callback that is none', 'INVALID_OPTION', /onProgress: got "x", wanted a function/, options({ onProgress: 'x' })],
]; // prettier-ignore

/** A base is not searched for NaN: it is as large as memory. Its requests end with a code. */
const NOT_FINITE: BadInput = ['a base with NaN, asked', 'LOGITS_NOT_FINITE', /logits/, async ({ files }) => {
  const path = rewritten(files.base, WEIGHTS, withValue(/lm_head/, 'first', NaN));
  await using base = await loadBase({ path, limits: LIMITS });
  await base.generate({ prompt: 'hi', maxTokens: 4 }).result;
}]; // prettier-ignore

const coded = ([name, kind, ...rest]: BadInput): BadInput => [name, `ERR_${kind}`, ...rest];

export const BAD_BASES: BadInput[] = [
  ...FILE_DAMAGE.map(([name, kind, says, change]): BadInput => [
    name,
    `ERR_SAFETENSORS_${kind}`,
    says,
    weights(change),
  ]),
  ...[...FOLDERS, ...CONFIGS, ...TOKENIZERS, ...OPTIONS, NOT_FINITE].map(coded),
];
