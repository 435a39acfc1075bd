// What to try next, for every code that the command line can print. The messages say what, got and wanted; a test holds
// this table against docs/errors.md.

/** Where an error came up: what it takes to write a command that can be pasted. */
export interface Place {
  /** Folders, as the user gave them. */
  base?: string | undefined;
  adapter?: string | undefined;
  /** As the SDK calls it. */
  option?: unknown;
}

type Hint = string | ((place: Place) => string);

const REPORT = 'report it with this message; OPENLORA_DEBUG=1 shows where it happened';
const PULL_AGAIN = 'download the file again: openlora pull ORG/NAME checks every hash';
const OTHER_BASE = 'another base; the families that are supported are in docs/models.md';
const SAVE_ADAPTER = 'save the adapter again, with save_pretrained of PEFT';
const retrain = (how: string) => `train or convert it as plain LoRA: ${how}`;

/** Options of the SDK that the command line calls otherwise. */
const FLAGS: Readonly<Record<string, string>> = {
  'limits.deviceMemory': '--memory',
  'limits.maxContext': '--context',
  cacheDir: '--cache-dir',
  maxTokens: '--max-tokens',
  topK: '--top-k',
  topP: '--top-p',
};

function flagOf({ option }: Place): string {
  if (typeof option !== 'string') return 'openlora COMMAND --help shows the ranges';
  return `another value for ${FLAGS[option] ?? `--${option}`}`;
}

const inspectBase = ({ base = 'DIR' }: Place) => `openlora inspect ${quoted(base)}`;
const inspectAdapter = ({ adapter = 'DIR' }: Place) => `openlora inspect ${quoted(adapter)}`;
const inspectFit = ({ adapter = 'DIR', base = 'BASE' }: Place) =>
  `openlora inspect ${quoted(adapter)} --base ${quoted(base)}`;

const CALLS: Record<string, Hint> = {
  ERR_UNKNOWN_OPTION: REPORT,
  ERR_INVALID_OPTION: flagOf,
  ERR_NOT_SUPPORTED: 'leave the option out',
  ERR_CLOSED: REPORT,
  ERR_ABORTED: 'the same command again',
  ERR_INTERNAL: REPORT,
  ERR_OVERLOADED: 'fewer requests at once',
  ERR_DEADLINE: 'more time, or a smaller --max-tokens',
  ERR_ENGINE_STALLED: 'the same command again; if it comes back, report it with this message',
  ERR_CONTEXT_LENGTH: 'a shorter prompt, a smaller --max-tokens, or a larger --context if the base is made for it',
  ERR_TOKEN_RANGE: 'token ids of this base',
  ERR_INVALID_REQUEST: REPORT,
  ERR_LOGITS_NOT_FINITE: '--dtype f32; if it stays, the weights or the adapter are damaged',
  ERR_CHAT_TEMPLATE_MISSING: 'this base continues text: openlora generate --prompt …',
  ERR_CHAT_TEMPLATE: 'what the message asks for (often: no system message, or turns that alternate)',
  ERR_ITERATOR_TAKEN: REPORT,
};

const LOADING: Record<string, Hint> = {
  ERR_NATIVE_NOT_FOUND: 'openlora doctor says what was tried; openlora build builds it from source',
  ERR_THREADS: 'a smaller --threads, or a higher limit on processes for this user or container',
  ERR_SIMD_LEVEL: '--simd auto; openlora doctor lists the levels of this machine',
  ERR_CUDA_DRIVER: 'openlora doctor says what was tried; the CPU needs no driver',
  ERR_CUDA_DEVICE: 'nvidia-smi lists the GPUs; compute capability 8.0 or later is needed',
  ERR_CUDA_UNSUPPORTED: 'leave the dtypes out: on a GPU all are bf16 or f16; or use the CPU',
  ERR_CUDA_FAILED: 'start the process again; nvidia-smi says how the GPU is',
  ERR_LIMITS: 'a smaller --context, or a larger --memory',
  ERR_OUT_OF_MEMORY:
    '--dtype int4, int8 or bf16, a smaller --context, or a smaller --memory; openlora doctor says what there is',
  ERR_IO: 'check that the file is there and may be read',
  ERR_BASE_NOT_FOUND: 'the folder that holds config.json, or openlora pull ORG/NAME to download one',
  ERR_BASE_CONFIG: PULL_AGAIN,
  ERR_BASE_ARCHITECTURE: OTHER_BASE,
  ERR_BASE_QUANTIZED: 'the unquantised checkpoint of this model; --dtype bf16 halves what f32 needs',
  ERR_BASE_UNSUPPORTED: OTHER_BASE,
  ERR_BASE_ROPE: OTHER_BASE,
  ERR_BASE_FILES: 'openlora pull ORG/NAME fetches what is missing; only safetensors are read',
  ERR_BASE_INDEX: PULL_AGAIN,
  ERR_BASE_TENSOR_MISSING: PULL_AGAIN,
  ERR_BASE_TENSOR_SURPLUS: 'remove the file that does not belong to this checkpoint',
  ERR_BASE_TENSOR_SHAPE: 'the config.json that these weights came with',
  ERR_BASE_TENSOR_DTYPE: 'save the checkpoint as bf16, f16 or f32',
  ERR_MODEL_CONFIG: OTHER_BASE,
  ERR_MODEL_TENSOR: inspectBase,
  ERR_TENSOR_RANGE: PULL_AGAIN,
  ERR_SAFETENSORS_HEADER: PULL_AGAIN,
  ERR_SAFETENSORS_TRUNCATED: PULL_AGAIN,
  ERR_SAFETENSORS_DTYPE: 'save the file again, with the safetensors library',
  ERR_SAFETENSORS_SHAPE: 'save the file again, with the safetensors library',
  ERR_SAFETENSORS_RANGE: 'save the file again, with the safetensors library',
  ERR_TOKENIZER_MISSING: 'put tokenizer.json beside the weights; openlora pull ORG/NAME fetches it',
  ERR_TOKENIZER_UNSUPPORTED: OTHER_BASE,
  ERR_FOLDER_WORKER: 'the same command again; if it comes back, report it with this message',
  ERR_TOKENIZER_WORKER: 'the same command again; if it comes back, report it with this message',
};

const ADAPTERS: Record<string, Hint> = {
  ERR_ADAPTER_NOT_FOUND: '--adapter ID=DIR registers it',
  ERR_ADAPTER_FILES: inspectAdapter,
  ERR_ADAPTER_INDEX: SAVE_ADAPTER,
  ERR_ADAPTER_STREAM: REPORT,
  ERR_ADAPTER_SIZE: REPORT,
  ERR_ADAPTER_GENERATION: REPORT,
  ERR_ADAPTER_SUPERSEDED: REPORT,
  ERR_ADAPTER_PIN_LIMIT: REPORT,
  ERR_ADAPTER_HOST_LIMIT: REPORT,
  ERR_ADAPTER_RESOLVER: REPORT,
  ERR_ADAPTER_RESOLVER_TIMEOUT: REPORT,
  ERR_STORE: REPORT,
  ERR_STORE_REFUSED: REPORT,
  ERR_STORE_DIGEST: REPORT,
  ERR_ADAPTER_BIN: 'load it with PEFT and save it again: save_pretrained(DIR, safe_serialization=True)',
  ERR_ADAPTER_CONFIG: 'mend adapter_config.json, or save the adapter again',
  ERR_ADAPTER_UNKNOWN_KEY: 'a newer openlora; the key may change what the adapter computes',
  ERR_ADAPTER_PEFT_TYPE: 'a LoRA adapter; no other method of PEFT is supported',
  ERR_ADAPTER_TASK: 'an adapter for CAUSAL_LM',
  ERR_ADAPTER_DORA: retrain('use_dora=False'),
  ERR_ADAPTER_BIAS: retrain("bias='none'"),
  ERR_ADAPTER_LORA_BIAS: retrain('lora_bias=False'),
  ERR_ADAPTER_MODULES_TO_SAVE: retrain('target_modules in place of modules_to_save'),
  ERR_ADAPTER_TRAINABLE_TOKENS: retrain('no trainable_token_indices'),
  ERR_ADAPTER_TARGET_PARAMETERS: retrain('target_modules in place of target_parameters'),
  ERR_ADAPTER_LAYER_REPLICATION: retrain('no layer_replication'),
  ERR_ADAPTER_ALORA: retrain('no alora_invocation_tokens'),
  ERR_ADAPTER_INIT: 'PEFT converts it: save_pretrained(DIR, path_initial_model_for_weight_conversion=…)',
  ERR_ADAPTER_WEIGHT_TYING: retrain('ensure_weight_tying=False'),
  ERR_ADAPTER_VARIANT: retrain('none of its variants'),
  ERR_ADAPTER_TARGETS: inspectFit,
  ERR_ADAPTER_LAYER: inspectFit,
  ERR_ADAPTER_PATTERN: 'names in a list in place of the pattern',
  ERR_ADAPTER_RANK: inspectFit,
  ERR_ADAPTER_TENSOR_MISSING: inspectFit,
  ERR_ADAPTER_TENSOR_SURPLUS: inspectFit,
  ERR_ADAPTER_HALF_PAIR: SAVE_ADAPTER,
  ERR_ADAPTER_SHAPE: inspectFit,
  ERR_ADAPTER_DTYPE: 'save the adapter as bf16, f16 or f32',
  ERR_ADAPTER_BASE_TENSOR: 'the base that it was trained on, or save it with save_embedding_layers=False',
  ERR_ADAPTER_BASE_NAME: inspectFit,
  ERR_ADAPTER_TOKENIZER: 'mend or remove the tokenizer files in the folder of the adapter',
  ERR_ADAPTER_VOCABULARY: 'the base that it was trained on, with its added tokens',
  ERR_ADAPTER_NOT_FINITE: 'an earlier checkpoint of the adapter: this one holds NaN or infinity',
  ERR_ADAPTER_CHANGED: 'the same command again, once nothing writes to the folder',
};

const COMMAND_LINE: Record<string, Hint> = {
  ERR_USAGE: 'openlora --help',
  ERR_UNEXPECTED: REPORT,
  ERR_NOT_FOUND: 'check the path',
  ERR_NOT_A_FOLDER: 'the folder that holds it',
  ERR_NOT_A_MODEL: 'the folder that holds config.json or adapter_config.json',
  ERR_BUILD: 'openlora doctor',
  ERR_BENCH_MODEL: 'a config.json of a Llama, Mistral, Qwen2 or Qwen3, or --model qwen2.5-0.5b',
  ERR_BENCH_DISK: '--folder DIR on a disk with more space, or fewer --adapters',
  ERR_BENCH_WRONG: 'report it with this message: a kernel computes wrong numbers on this machine',
  ERR_BENCH_REPORT: 'openlora bench … --json > FILE writes one',
  ERR_BENCH_COMPARE: '--force compares them all the same',
  ERR_DEMO_MISSING: 'npm install openlora: the demo comes with the package',
  ERR_HUB: 'the same command again: it goes on where it stopped',
  ERR_HUB_AUTH: 'HF_TOKEN=hf_… of an account that may read it',
  ERR_HUB_NOT_FOUND: 'look at the name on the hub',
  ERR_HUB_RATE: 'the same command in a minute: it goes on where it stopped',
  ERR_HUB_REPO: 'another repository, with safetensors',
  ERR_HUB_UNREACHABLE: 'the same command again: it goes on where it stopped; HF_ENDPOINT names a mirror',
  ERR_HUB_DIGEST: 'the same command again',
};

/** Of the operating system; it has no page in docs/errors.md. */
const SYSTEM: Record<string, Hint> = {
  ENOENT: 'check the path',
  ENOTDIR: 'the path of a folder',
  EISDIR: 'the path of a file',
  EEXIST: 'another name',
  EACCES: 'a place that you may read and write',
  EPERM: 'a place that you may read and write',
  EROFS: 'a place that can be written',
  ENOSPC: 'free some space, or another disk',
  EDQUOT: 'free some space, or another disk',
  EMFILE: 'more open files: ulimit -n 4096',
};

const HINTS: Readonly<Record<string, Hint>> = { ...CALLS, ...LOADING, ...ADAPTERS, ...COMMAND_LINE, ...SYSTEM };

/** One line. Codes that aren't known here, of later layers, are to be reported. */
export function hintOf(code: string, place: Place = {}): string {
  const hint = Object.hasOwn(HINTS, code) ? HINTS[code]! : REPORT;
  return typeof hint === 'string' ? hint : hint(place);
}

/** Codes of the table, but those of the operating system. */
export const HINTED_CODES: readonly string[] = Object.keys({ ...CALLS, ...LOADING, ...ADAPTERS, ...COMMAND_LINE });

/** A word as a shell reads it back. */
export function quoted(word: string): string {
  return /^[\w./:@%+,=~-]+$/.test(word) ? word : `'${word.replaceAll("'", String.raw`'\''`)}'`;
}
