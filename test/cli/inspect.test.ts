import { dirname } from 'node:path';
import { describe, expect, it } from 'vitest';
import {
  LORA_CONFIG,
  QV,
  adapterFolder,
  baseFolder,
  loraTensors,
  newFolder,
  tinyTensors,
  writeFiles,
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
    expect((await runCli(['inspect', path, '--base', base])).stdout).toMatch(/✗ does not fit .*\[ERR_ADAPTER_SHAPE\]/);
  });

  it('refuses what is not supported by its name', async () => {
    const path = await adapterFolder({ ...LORA_CONFIG, use_dora: true });
    const { code, error } = await inspectJson(path);
    expect({ code, message: error.message }).toEqual({ code: 1, message: expect.stringMatching(/dora/i) });
  });
});

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

  it('a base with --base', async () => {
    const path = await baseFolder();
    expect((await runCli(['inspect', path, '--base', dirname(path)])).code).toBe(2);
  });
});
