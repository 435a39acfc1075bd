import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import {
  LORA_CONFIG,
  QV,
  TINY,
  adapterFolder,
  baseFolder,
  loraTensors,
  newFolder,
  tinyTensors,
  writeFiles,
  type FakeTensor,
  type FakeTensors,
} from '../formats/fixtures.js';
import { runCli } from './run-cli.js';

async function inspectJson(...args: string[]) {
  const { code, stdout } = await runCli(['inspect', ...args, '--json']);
  return { code, ...JSON.parse(stdout) };
}

describe('openlora inspect of a base', () => {
  it('says its shape, its sites and what is wrong with its tokenizer', async () => {
    const path = await baseFolder();
    expect(await inspectJson(path)).toMatchObject({
      code: 0,
      kind: 'base',
      path,
      family: 'llama',
      layers: 2,
      dtype: 'f32',
      contextLength: 64,
      files: [{ name: 'model.safetensors' }],
      tokenizer: { error: { code: expect.stringMatching(/^ERR_TOKENIZER/) } },
      bytes: Object.values(tinyTensors()).reduce((sum, { shape }) => sum + 4 * shape.reduce((a, b) => a * b), 0),
    });
    const { code, stdout } = await runCli(['inspect', path]);
    expect(code).toBe(0);
    expect(stdout).toMatch(/model\.layers\.\*\.self_attn\.k_proj +16 +8 +2/);
    expect(stdout).toMatch(/head of its own/);
    // 2 (K and V) x 2 layers x 2 heads of 4, of 4 bytes in f32; 1,000 tokens.
    expect(stdout).toContain('125 KiB of KV cache for each 1,000 tokens');
    expect(stdout.trimEnd().split('\n').length).toBeLessThanOrEqual(24);
  });

  it('warns of settings that are not applied', async () => {
    const path = await baseFolder(undefined, undefined, { 'generation_config.json': { num_beams: 4 } });
    const message = 'generation_config.json: num_beams is not supported and not applied';
    expect(await inspectJson(path)).toMatchObject({ code: 0, warnings: [{ code: 'WARN_BASE_GENERATION', message }] });
    const { stdout } = await runCli(['inspect', path]);
    expect(stdout).toContain(`warning: ${message} [WARN_BASE_GENERATION]\n`);
  });

  it('passes on why it cannot be read', async () => {
    const path = await baseFolder({ architectures: ['MambaForCausalLM'], model_type: 'mamba' });
    expect(await inspectJson(path)).toMatchObject({ code: 1, error: { code: 'ERR_BASE_ARCHITECTURE' } });
  });
});

describe('openlora inspect of an adapter', () => {
  it('says its rank, its sites and its size', async () => {
    const path = await adapterFolder();
    expect(await inspectJson(path)).toMatchObject({
      code: 0,
      kind: 'adapter',
      path,
      rank: { min: 4, max: 4 },
      alpha: 16,
      baseNameOrPath: 'test/tiny',
    });
    const { stdout } = await runCli(['inspect', path]);
    expect(stdout).toContain('model.layers.*.self_attn.q_proj × 2');
    expect(stdout).toContain('alpha 16');
  });

  it('takes an adapter_config.json that begins with a byte order mark, as the SDK does', async () => {
    const path = await adapterFolder({}, undefined, {
      'adapter_config.json': `\uFEFF${JSON.stringify({ ...LORA_CONFIG, lora_alpha: 12 })}`,
    });
    expect(await inspectJson(path)).toMatchObject({ code: 0, alpha: 12 });
  });

  it('says that it fits a base, and with which scale', async () => {
    const [path, base] = [await adapterFolder(), await baseFolder()];
    expect(await inspectJson(path, '--base', base)).toMatchObject({ code: 0, base, fit: { fits: true, scales: [4] } });
    expect((await runCli(['inspect', path, '--base', base])).stdout).toContain('✓ fits');
  });

  it('says why it does not fit, with exit code 1', async () => {
    const tensors = loraTensors(QV);
    tensors['base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight']!.shape = [4, 32];
    const [path, base] = [await adapterFolder({}, tensors), await baseFolder()];
    expect(await inspectJson(path, '--base', base)).toMatchObject({
      code: 1,
      fit: { fits: false, error: { code: 'ERR_ADAPTER_SHAPE' } },
    });
    const { stdout } = await runCli(['inspect', path, '--base', base]);
    expect(stdout).toMatch(
      /✗ does not fit, for one reason:\n.*q_proj\.lora_A\.weight is \[4,\n +32\], the base needs \[4, 16\] \[ERR_ADAPTER_SHAPE\]\ntry: /,
    );
  });

  it('refuses what is not supported by its name', async () => {
    const path = await adapterFolder({ ...LORA_CONFIG, use_dora: true });
    const { code, error } = await inspectJson(path);
    expect({ code, message: error.message }).toEqual({ code: 1, message: expect.stringMatching(/dora/i) });
  });
});

/** Tensors of a base of these sizes, all layers, rank 1: module (without its layer) → [out, in]. */
function adapterOf(layers: number, modules: Record<string, [out: number, width: number]>): FakeTensors {
  const tensors: FakeTensors = {};
  for (let layer = 0; layer < layers; layer++) {
    for (const [module, [out, width]] of Object.entries(modules)) {
      const prefix = `base_model.model.model.layers.${layer}.${module}`;
      tensors[`${prefix}.lora_A.weight`] = { dtype: 'BF16', shape: [1, width] };
      tensors[`${prefix}.lora_B.weight`] = { dtype: 'BF16', shape: [out, 1] };
    }
  }
  return tensors;
}

const PARITY = 'test/data/parity/';

const LLAMA_3_8B = {
  'self_attn.q_proj': [4096, 4096],
  'self_attn.k_proj': [1024, 4096],
  'self_attn.v_proj': [1024, 4096],
  'self_attn.o_proj': [4096, 4096],
  'mlp.gate_proj': [14336, 4096],
  'mlp.up_proj': [14336, 4096],
  'mlp.down_proj': [4096, 14336],
} satisfies Record<string, [number, number]>;
const ALL_LINEAR = Object.keys(LLAMA_3_8B).map((module) => module.split('.')[1]);

describe('openlora inspect of an adapter that does not fit', () => {
  const large = () =>
    adapterFolder(
      { r: 1, target_modules: ALL_LINEAR, base_model_name_or_path: 'meta-llama/Llama-3.1-8B' },
      adapterOf(32, LLAMA_3_8B),
    );

  it('says every reason on one screen, and what it was made for', async () => {
    const { code, stdout } = await runCli(['inspect', await large(), '--base', await baseFolder()]);
    expect(code).toBe(1);
    const lines = stdout.trimEnd().split('\n');
    expect(lines.length).toBeLessThanOrEqual(24);
    for (const line of lines.slice(1)) expect(line.length).toBeLessThanOrEqual(80);
    expect(lines.slice(lines.findIndex((line) => line.startsWith('✗'))).join('\n')).toMatchInlineSnapshot(`
      "✗ does not fit, for 2 reasons:
        28 tensors have the wrong shape for this base [ERR_ADAPTER_SHAPE]
          q k v o gate up · A  [1, 4096], wanted [1, 16]
          q o down · B         [4096, 1], wanted [16, 1]
          k v · B              [1024, 1], wanted [8, 1]
          gate up · B          [14336, 1], wanted [24, 1]
          down · A             [1, 14336], wanted [1, 24]
        420 tensors are of layers that this base doesn't have [ERR_ADAPTER_LAYER]
          q k v o gate up down  layers 2 to 31
        made for   hidden 4,096, 32 layers, mlp 14,336, keys 1,024 (like Llama 3 8B,
                   Mistral 7B)
        this base  hidden 16, 2 layers, mlp 24, keys 8
      try: openlora pull meta-llama/Llama-3.1-8B"
    `);
  });

  it('says the same as JSON', async () => {
    const { code, fit } = await inspectJson(await large(), '--base', await baseFolder());
    expect(code).toBe(1);
    expect(fit).toMatchObject({
      fits: false,
      error: { code: 'ERR_ADAPTER_LAYER' },
      madeFor: { hidden: 4096, layers: 32, intermediate: 14336, kvWidth: 1024, like: ['Llama 3 8B', 'Mistral 7B'] },
      base: { family: 'llama', hidden: 16, layers: 2, intermediate: 24, kvWidth: 8, vocabSize: 40 },
    });
    const counts = fit.reasons.map(({ code, count }: { code: string; count: number }) => [code, count]);
    // 14 tensors in each of 32 layers, of which the base has two.
    const total = (wanted: string) =>
      counts.reduce((sum: number, [code, count]: [string, number]) => sum + (code === wanted ? count : 0), 0);
    expect([total('ERR_ADAPTER_LAYER'), total('ERR_ADAPTER_SHAPE')]).toEqual([30 * 14, 2 * 14]);
    expect(fit.reasons).toContainEqual({
      code: 'ERR_ADAPTER_SHAPE',
      message: expect.stringContaining('model.layers.0.self_attn.k_proj.lora_B.weight is [1024, 1]'),
      tensor: 'base_model.model.model.layers.0.self_attn.k_proj.lora_B.weight',
      count: 4,
      modules: ['self_attn.k_proj', 'self_attn.v_proj'],
      layers: [0, 1],
      matrix: 'B',
      got: [1024, 1],
      wanted: [8, 1],
    });
  });

  it('goes on after each key that the config should not have, and after each file', async () => {
    const config = {
      use_dora: true,
      modules_to_save: ['lm_head'],
      bias: 'all',
      init_lora_weights: 'pissa',
      lora_bias: true,
    };
    const tensors = loraTensors(QV);
    delete tensors['base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight'];
    tensors['base_model.model.model.layers.0.self_attn.v_proj.lora_A.weight']!.shape = [4, 99];
    tensors['base_model.model.model.layers.7.self_attn.v_proj.lora_A.weight'] = { dtype: 'F32', shape: [4, 16] };
    tensors['base_model.model.other.lora_A.weight'] = { dtype: 'F32', shape: [4, 16] };
    tensors['base_model.model.model.layers.1.self_attn.q_proj.lora_magnitude_vector'] = { dtype: 'F32', shape: [16] };
    const path = await adapterFolder(config, tensors, { 'added_tokens.json': { '<new>': 4000 } });
    const { fit } = await inspectJson(path, '--base', await baseFolder());
    expect(new Set(fit.reasons.map(({ code }: { code: string }) => code.replace('ERR_ADAPTER_', '')))).toEqual(
      new Set([
        ...['DORA', 'MODULES_TO_SAVE', 'BIAS', 'INIT', 'LORA_BIAS'],
        ...['HALF_PAIR', 'SHAPE', 'LAYER', 'TENSOR_SURPLUS', 'VOCABULARY'],
      ]),
    );
  });

  it('fits one screen whatever is wrong, says how much is left out, and keeps what registering says', async () => {
    const { stdout, fit } = await misfitOfEverything();
    expect(fit.reasons.length).toBeGreaterThan(20);
    expectOneScreen(stdout);
    const codes = new Set<string>(fit.reasons.map(({ code }: { code: string }) => code));
    const told = [...codes].filter((code) => stdout.includes(`[${code}]`));
    expect(codes.size).toBeGreaterThan(10);
    expect(told).toContain(fit.error.code);
    expect(told.length).toBeGreaterThanOrEqual(6);
    expect(stdout).toMatch(`for ${codes.size} reasons:`);
    expect(stdout).toMatch(`  … and ${codes.size - told.length} more; --json lists all\n`);
  });

  it('tells fewer rows of each code where all of them are more than a screen', async () => {
    const tensors = adapterOf(2, LLAMA_3_8B);
    for (let i = 0; i < 12; i++)
      tensors[`base_model.model.model.layers.0.self_attn.x${i}.weight`] = { dtype: 'F32', shape: [i + 1] };
    for (const module of Object.keys(LLAMA_3_8B))
      tensors[`base_model.model.model.layers.1.${module}.lora_A.weight`]!.shape = [1, module.length];
    const path = await adapterFolder({ r: 1, bias: 'all', use_dora: true, target_modules: ALL_LINEAR }, tensors);
    const { stdout } = await runCli(['inspect', path, '--base', await baseFolder()]);
    expectOneScreen(stdout);
    expect(stdout).toContain('x0 x1 x2 x3 x4 x5 x6 x7 +4  not a part of a LoRA adapter');
    expect(stdout).toMatch(/\[ERR_ADAPTER_SHAPE\]\n(?: {4}.+, wanted .+\n){4,6} {4}… and \d more\n/);
    expect(stdout).toContain('  --json lists all\n');
  });

  it('names the modules of saved base tensors', async () => {
    const tensors = {
      'base_model.model.lm_head.base_layer.weight': { dtype: 'F32', shape: [9, 9] },
      'base_model.model.model.embed_tokens.weight': { dtype: 'F32', shape: [9, 9] },
    };
    const path = await adapterFolder({}, { ...loraTensors(QV), ...tensors });
    const base = await baseFolder();
    const { fit } = await inspectJson(path, '--base', base);
    expect(fit.reasons).toMatchObject([{ modules: ['lm_head', 'model.embed_tokens'], count: 2 }]);
    const { stdout } = await runCli(['inspect', path, '--base', base]);
    expect(stdout).toMatch(
      / {2}2 tensors were saved along .+\n? .*\[ERR_ADAPTER_BASE_TENSOR\]\n {4}lm_head embed_tokens {2}\[9, 9\], the base's is \[40, 16\]\n/,
    );
  });

  const FUSED = 'q_proj, k_proj and v_proj fused as qkv_proj';
  const FUSED_MLP = 'gate_proj and up_proj fused as gate_up_proj';
  const APART = 'q_proj, k_proj and v_proj in place of qkv_proj';
  const APART_MLP = 'gate_proj and up_proj in place of gate_up_proj';
  it.each<[adapter: string, base: string, rows: string[]]>([
    ['llama-gqa/adapters/r64-all', 'phi3', [`k q v +this base has ${FUSED}`, `gate up +this base has ${FUSED_MLP}`]],
    ['gemma2/adapters/r8-all', 'phi3-long', [`k q v +this base has ${FUSED}`, `gate up +this base has ${FUSED_MLP}`]],
    ['qwen3/adapters/r3-some', 'phi3', [`q v +this base has ${FUSED}`]],
    ['phi3/adapters/r8-all', 'llama-gqa', [`gate_up +this base has ${APART_MLP}`, `qkv +this base has ${APART}`]],
    ['phi3/adapters/r3-some', 'qwen3', [`qkv +this base has ${APART}`]],
    ['phi3-long/adapters/r8-all', 'olmo2', [`qkv +this base has ${APART}`]],
  ])('says what is fused, of %s on %s', async (adapter, base, rows) => {
    const { stdout } = await runCli(['inspect', `${PARITY}${adapter}`, '--base', `${PARITY}${base}`]);
    expectOneScreen(stdout);
    for (const row of rows) expect(stdout).toMatch(new RegExp(`^    ${row}$`, 'm'));
    expect(stdout).not.toMatch(/promise/);
  });

  it('says what is fused where nothing else is targeted', async () => {
    const folders = [`${PARITY}llama-gqa/adapters/r1`, '--base', `${PARITY}phi3`];
    expect(await inspectJson(...folders)).toMatchObject({
      fit: {
        error: {
          code: 'ERR_ADAPTER_TARGETS',
          message: `target_modules ["v_proj","q_proj"] names no module of the base; this base has ${FUSED}`,
        },
      },
    });
  });

  it.each<[string, Record<string, unknown>, Record<string, FakeTensor>]>([
    ['DORA', { use_dora: true }, {}],
    ['PEFT_TYPE', { peft_type: 'IA3' }, {}],
    ['TASK', { task_type: 'SEQ_CLS' }, {}],
    ['UNKNOWN_KEY', { use_new_thing: true }, {}],
    ['CONFIG', { lora_alpha: 'x' }, {}],
    ['CONFIG', { target_modules: [] }, {}],
    ['RANK', { r: 1000 }, {}],
    ['RANK', { rank_pattern: { q_proj: 0 } }, {}],
    ['RANK', { r: 8 }, {}],
    ['TARGETS', { target_modules: ['c_attn'] }, {}],
    ['LAYER', { layers_to_transform: [5] }, {}],
    ['PATTERN', { target_modules: '(' }, {}],
    ['TENSOR_MISSING', { target_modules: ['q_proj', 'v_proj', 'k_proj'] }, {}],
    ['TENSOR_SURPLUS', { target_modules: ['q_proj'] }, {}],
    ['DTYPE', {}, { 'model.layers.0.self_attn.q_proj.lora_A.weight': { dtype: 'I64', shape: [4, 16] } }],
    ['BASE_TENSOR', {}, { 'lm_head.weight': { dtype: 'F32', shape: [9, 9] } }],
  ])('names first what registering would be refused for: %s, %j', async (kind, config, tensors) => {
    const named = Object.entries(tensors).map(([name, tensor]) => [`base_model.model.${name}`, tensor] as const);
    const path = await adapterFolder(config, { ...loraTensors(QV), ...Object.fromEntries(named) });
    const base = await baseFolder();
    const { fit } = await inspectJson(path, '--base', base);
    expect(fit.error.code).toBe(`ERR_ADAPTER_${kind}`);
    expect(fit.reasons.map(({ message }: { message: string }) => message)).toContain(fit.error.message);
    const { stdout } = await runCli(['inspect', path, '--base', base]);
    expect(stdout).toContain(`[${fit.error.code}]`);
    expect(stdout).toMatch(/^try: (?!openlora inspect).+$/m);
    expect(stdout.trimEnd().split('\n').length).toBeLessThanOrEqual(24);
  });

  it('says what it is made of where it has no tensor of a LoRA', async () => {
    const path = await adapterFolder({}, { 'base_model.model.x.weight': { dtype: 'F32', shape: [1] } });
    const { fit, rank, sites } = await inspectJson(path, '--base', await baseFolder());
    expect({ rank, sites }).toEqual({ rank: { min: 0, max: 0 }, sites: [] });
    expect(fit.madeFor).toEqual({ like: [] });
  });
});

/** Names and values so long, and so many reasons, that nothing of it would fit. */
async function misfitOfEverything() {
  const config = {
    ...{ use_dora: true, bias: 'all', modules_to_save: ['lm_head'], init_lora_weights: 'pissa', lora_bias: true },
    ...{ task_type: 'SEQ_CLS', target_parameters: ['x'], layer_replication: [[0, 1]], use_new_thing: 'n'.repeat(300) },
    ...{ trainable_token_indices: [1], alora_invocation_tokens: [1], ensure_weight_tying: true, use_qalora: true },
    target_modules: [...ALL_LINEAR, 'c_attn'],
    rank_pattern: { q_proj: 3 },
    base_model_name_or_path: 'n'.repeat(1000),
  };
  const tensors: FakeTensors = { ...adapterOf(3, LLAMA_3_8B), ...loraTensors(QV) };
  delete tensors['base_model.model.model.layers.0.self_attn.k_proj.lora_A.weight'];
  delete tensors['base_model.model.model.layers.1.mlp.up_proj.lora_A.weight'];
  delete tensors['base_model.model.model.layers.1.mlp.up_proj.lora_B.weight'];
  tensors['base_model.model.lm_head.base_layer.weight'] = { dtype: 'F32', shape: [9, 9] };
  tensors['base_model.model.model.embed_tokens.weight'] = { dtype: 'F32', shape: [9, 8] };
  tensors['base_model.model.model.layers.0.mlp.down_proj.lora_A.weight']!.dtype = 'I64';
  for (let i = 0; i < 30; i++) tensors[`base_model.model.odd${i}.lora_A.weight`] = { dtype: 'F32', shape: [4, i + 1] };
  const path = await adapterFolder(config, tensors, { 'added_tokens.json': { '<new>': 4000 } });
  const base = await baseFolder({ ...TINY, _name_or_path: 'b'.repeat(1000) });
  const { stdout } = await runCli(['inspect', path, '--base', base]);
  return { stdout, fit: (await inspectJson(path, '--base', base)).fit };
}

/** 24 rows of 80 columns. */
function expectOneScreen(stdout: string): void {
  const lines = stdout.trimEnd().split('\n');
  expect(lines.length).toBeLessThanOrEqual(24);
  for (const line of lines) expect(line.length).toBeLessThanOrEqual(80);
  expect(lines.at(-1)).toMatch(/^try: /);
}

describe('openlora inspect of something else', () => {
  it.each([
    ['an empty folder', {}, 'has nothing; wanted config.json'],
    ['other files', { 'notes.txt': 'x' }, 'has notes.txt; wanted config.json'],
  ])('%s', async (_, files, message) => {
    const path = await newFolder();
    await writeFiles(path, files);
    const { code, stderr } = await runCli(['inspect', path]);
    expect({ code, stderr }).toEqual({ code: 1, stderr: expect.stringContaining(message) });
  });

  it('a folder of models, with one of them to look at', async () => {
    const path = await newFolder();
    mkdirSync(join(path, 'b'));
    writeFileSync(join(path, 'b', 'adapter_config.json'), '{}');
    expect((await runCli(['inspect', path])).stderr).toMatch(/try: openlora inspect \S+\/b\n$/);
  });

  it('a base with --base', async () => {
    const path = await baseFolder();
    expect((await runCli(['inspect', path, '--base', dirname(path)])).code).toBe(2);
  });
});
