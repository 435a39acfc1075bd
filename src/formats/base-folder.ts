// A base folder as Hugging Face models are published: config.json, generation_config.json, and safetensors files, one
// or several with an index.
//
// | code                       | meaning                                                                            |
// |----------------------------|------------------------------------------------------------------------------------|
// | ERR_BASE_NOT_FOUND         | no such folder, or no config.json in it                                            |
// | ERR_BASE_CONFIG            | config.json or generation_config.json malformed, a key missing or out of range     |
// | ERR_BASE_ARCHITECTURE      | an architecture that isn't supported                                               |
// | ERR_BASE_QUANTIZED         | a quantization_config                                                              |
// | ERR_BASE_UNSUPPORTED       | a setting that changes the function and isn't supported (activation, layer types)  |
// | ERR_BASE_ROPE              | a rope type or rotary setting that isn't supported                                 |
// | ERR_BASE_FILES             | no safetensors file, or one that the index names is missing; only .bin files       |
// | ERR_BASE_INDEX             | the index is malformed, or names another file than the one that has the tensor     |
// | ERR_BASE_TENSOR_MISSING    | a tensor that the architecture needs isn't there                                   |
// | ERR_BASE_TENSOR_SURPLUS    | a tensor that the architecture doesn't know, or one that is in two files           |
// | ERR_BASE_TENSOR_SHAPE      | a tensor's shape isn't the one that the config promises                            |
// | ERR_BASE_TENSOR_DTYPE      | a tensor is neither F32, F16 nor BF16                                              |

import { readdir } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { OpenLoraError } from '../errors.js';
import type { BaseTensor, DType } from '../native/binding.js';
import { ConfigReader } from './config-reader.js';
import { findFamily } from './families/index.js';
import type { Family, FamilyModel } from './families/family.js';
import { ignoredSettings, isRepetitionPenalty } from './generation-config.js';
import { isJsonObject, isMissing, readJsonObject } from './json.js';
import { Pacer } from './pacer.js';
import { readSafetensorsHeader, type SafetensorsTensor } from './safetensors.js';
import { IndexCheck, readSafetensorsIndex, type IndexCodes, type SafetensorsIndex } from './safetensors-index.js';
import type { BaseFolder, GenerationDefaults } from './types.js';

const INDEX = 'model.safetensors.index.json';
const SINGLE = 'model.safetensors';
const INDEX_CODES: IndexCodes = { index: 'ERR_BASE_INDEX', files: 'ERR_BASE_FILES' };

/** safetensors' dtypes that weights may have. */
export const WEIGHT_DTYPES: Readonly<Record<string, DType>> = { F32: 'f32', F16: 'f16', BF16: 'bf16' };

/** config.json's names of them, which may begin with `torch.`. */
const CONFIG_DTYPES = new Map<unknown, DType>([
  ['float32', 'f32'],
  ['float16', 'f16'],
  ['bfloat16', 'bf16'],
]);

/**
 * Reads and checks a base folder: configs and safetensors headers, no weights. Every tensor that the architecture
 * needs must be there with its shape, and no other. Throws the codes above, ERR_SAFETENSORS_*, ERR_ABORTED.
 */
export async function readBaseFolder(path: string, o: { signal?: AbortSignal } = {}): Promise<BaseFolder> {
  const folder = resolve(path);
  const pacer = new Pacer(o.signal);
  const object = await readJsonObject(join(folder, 'config.json'), 'ERR_BASE_CONFIG');
  if (!object) throw new OpenLoraError('ERR_BASE_NOT_FOUND', `${folder} has no config.json`, { path: folder });
  pacer.checkAborted();
  const config = new ConfigReader(object, 'config.json', 'ERR_BASE_CONFIG');
  const family = findFamily(config);
  checkQuantization(config);
  const model = family.read(config);
  const names = await weightFiles(folder);
  const weights = await readWeights(folder, names, model, pacer);
  const generation = await readGeneration(folder, config, family, model.spec.vocab);
  pacer.checkAborted();
  const nameOrPath = config.string('_name_or_path', '');
  return {
    path: folder,
    family: family.name,
    spec: model.spec,
    files: names.files.map((name) => join(folder, name)),
    ...weights,
    sourceDtype: configDtype(config) ?? weights.sourceDtype,
    sites: model.sites,
    modules: model.modules,
    linearModules: model.linearModules,
    ...generation,
    ...(nameOrPath === '' ? {} : { nameOrPath }),
    config: object,
  };
}

/** The dtype that config.json asks for; undefined where it names none that weights are kept in (`auto`, say). */
function configDtype(config: ConfigReader): DType | undefined {
  const named = config.get('dtype') ?? config.get('torch_dtype');
  return CONFIG_DTYPES.get(typeof named === 'string' ? named.replace(/^torch\./, '') : named);
}

function checkQuantization(config: ConfigReader): void {
  for (const key of ['quantization_config', 'compression_config']) {
    const value = config.get(key);
    if (value === undefined) continue;
    const method = isJsonObject(value) && typeof value.quant_method === 'string' ? ` (${value.quant_method})` : '';
    const message = `config.json: ${key}${method} is not supported; supported are weights saved as F32, F16 or BF16`;
    throw new OpenLoraError('ERR_BASE_QUANTIZED', message, { key });
  }
}

interface WeightFiles {
  files: string[];
  index?: SafetensorsIndex;
}

async function weightFiles(folder: string): Promise<WeightFiles> {
  const present = await readdir(folder).catch((cause: unknown) => {
    throw new OpenLoraError('ERR_BASE_NOT_FOUND', `${folder} can't be read`, { path: folder }, cause);
  });
  // transformers looks for the single file first.
  if (present.includes(SINGLE)) return { files: [SINGLE] };
  if (present.includes(INDEX)) {
    const index = await readSafetensorsIndex(folder, INDEX, present, INDEX_CODES);
    return { files: index.files, index };
  }
  const bin = present.find((name) => /\.(?:bin|pt|pth|gguf)$/.test(name));
  const hint = bin === undefined ? '' : `; ${bin} is not supported`;
  throw new OpenLoraError('ERR_BASE_FILES', `${folder} has neither ${SINGLE} nor ${INDEX}${hint}`, { path: folder });
}

type Weights = Pick<BaseFolder, 'tensors' | 'sourceDtype' | 'parameters'>;

async function readWeights(folder: string, names: WeightFiles, model: FamilyModel, pacer: Pacer): Promise<Weights> {
  const tensors = new Map<string, BaseTensor>();
  const index = names.index && new IndexCheck(names.index, INDEX_CODES);
  for (const [file, name] of names.files.entries()) {
    const header = await readHeader(join(folder, name), pacer);
    for (const tensor of header.tensors.values()) {
      index?.found(tensor.name, name);
      const base = checkTensor(tensor, file, model);
      if (base) tensors.set(tensor.name, base);
      if (pacer.isDue) await pacer.rest();
    }
  }
  index?.finish();
  return summarize(tensors, model);
}

async function readHeader(path: string, pacer: Pacer) {
  try {
    return await readSafetensorsHeader(path, pacer);
  } catch (error) {
    if (OpenLoraError.is(error)) throw error;
    const why = isMissing(error) ? "isn't there" : `can't be read: ${(error as Error).message}`;
    throw new OpenLoraError('ERR_BASE_FILES', `${path} ${why}`, { path }, error);
  }
}

/** The tensor as C++ gets it; undefined for one that may be there and isn't read. */
function checkTensor(tensor: SafetensorsTensor, file: number, model: FamilyModel): BaseTensor | undefined {
  const { name, shape } = tensor;
  const promised = model.tensors.get(name);
  if (!promised) {
    const harmless = model.harmless(name);
    if (harmless === 'derived') return undefined;
    const { vocab, hidden } = model.spec;
    if (harmless === 'tied-head') {
      if (shape.length === 2 && shape[0] === vocab && shape[1] === hidden) return undefined;
      throw shapeError(name, shape, [vocab, hidden]);
    }
    throw new OpenLoraError('ERR_BASE_TENSOR_SURPLUS', `tensor ${name} is not part of the architecture`, {
      tensor: name,
    });
  }
  const wanted = promised.shape;
  if (shape.length !== wanted.length || !shape.every((size, i) => size === wanted[i]))
    throw shapeError(name, shape, wanted);
  const dtype = WEIGHT_DTYPES[tensor.dtype];
  if (!dtype) {
    const message = `tensor ${name} is ${tensor.dtype}; supported are ${Object.keys(WEIGHT_DTYPES).join(', ')}`;
    throw new OpenLoraError('ERR_BASE_TENSOR_DTYPE', message, { tensor: name });
  }
  const [rows, cols] = shape.length === 1 ? [1, shape[0]!] : [shape[0]!, shape[1]!];
  const { role, layer } = promised;
  return { role, layer, file, offset: tensor.offset, bytes: tensor.bytes, dtype, rows, cols };
}

function shapeError(name: string, got: number[], wanted: number[]): OpenLoraError {
  const message = `tensor ${name} is [${got.join(', ')}], config.json needs [${wanted.join(', ')}]`;
  return new OpenLoraError('ERR_BASE_TENSOR_SHAPE', message, { tensor: name });
}

function summarize(found: Map<string, BaseTensor>, model: FamilyModel): Weights {
  const tensors: BaseTensor[] = [];
  const bytesOf = new Map<DType, number>();
  let parameters = 0;
  for (const name of model.tensors.keys()) {
    const tensor = found.get(name);
    if (!tensor) throw new OpenLoraError('ERR_BASE_TENSOR_MISSING', `tensor ${name} is missing`, { tensor: name });
    tensors.push(tensor);
    parameters += tensor.rows * tensor.cols;
    bytesOf.set(tensor.dtype, (bytesOf.get(tensor.dtype) ?? 0) + tensor.bytes);
  }
  const [sourceDtype] = [...bytesOf].reduce((most, next) => (next[1] > most[1] ? next : most));
  return { tensors, sourceDtype, parameters };
}

type Generation = Pick<BaseFolder, 'generation' | 'warnings' | 'eosTokens' | 'bosToken'>;

async function readGeneration(
  folder: string,
  config: ConfigReader,
  family: Family,
  vocab: number,
): Promise<Generation> {
  const object = (await readJsonObject(join(folder, 'generation_config.json'), 'ERR_BASE_CONFIG')) ?? {};
  const o = new ConfigReader(object, 'generation_config.json', 'ERR_BASE_CONFIG');
  const generation: GenerationDefaults = {};
  if (o.get('do_sample') !== undefined) generation.doSample = o.boolean('do_sample', false);
  const set = (key: string, isGood: (value: number) => boolean, wanted: string, put: (value: number) => void) => {
    if (o.get(key) === undefined) return;
    const value = o.number(key);
    if (!isGood(value)) throw o.fail(key, value, wanted);
    put(value);
  };
  // The ranges of `generate`, where these are the defaults.
  set(
    'temperature',
    (t) => t >= 0 && t <= 100,
    'a number from 0 to 100',
    (t) => (generation.temperature = t),
  );
  set(
    'top_k',
    (k) => Number.isInteger(k) && k >= 0 && k < 2 ** 31,
    'an integer from 0',
    (k) => (generation.topK = k),
  );
  set(
    'top_p',
    (p) => p > 0 && p <= 1,
    'a number above 0, at most 1',
    (p) => (generation.topP = p),
  );
  set(
    'min_p',
    (p) => p >= 0 && p <= 1,
    'a number from 0 to 1',
    (p) => (generation.minP = p),
  );
  set(
    'repetition_penalty',
    isRepetitionPenalty,
    'a number above 0',
    (penalty) => (generation.repetitionPenalty = penalty),
  );
  const tokens = (key: 'eos_token_id' | 'bos_token_id', fallback: number | undefined) => {
    const usual = fallback === undefined ? [] : [fallback];
    // Ids outside the vocabulary (-1 in some configs) can never come up.
    return ((o.get(key) === undefined ? config.tokens(key) : o.tokens(key)) ?? usual).filter(
      (id) => id >= 0 && id < vocab,
    );
  };
  const [bosToken] = tokens('bos_token_id', family.defaults.bosToken);
  const eosTokens = [...new Set(tokens('eos_token_id', family.defaults.eosToken))];
  return { generation, warnings: ignoredSettings(o), eosTokens, ...(bosToken === undefined ? {} : { bosToken }) };
}
