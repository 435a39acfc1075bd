import { readFileSync } from 'node:fs';
import { beforeAll, describe, expect, test } from 'vitest';
import { readBaseFolder } from '../../src/formats/base-folder.js';
import { Pacer } from '../../src/formats/pacer.js';
import { readLoraConfig } from '../../src/formats/peft.js';
import { resolveTargets } from '../../src/formats/peft-targets.js';
import type { BaseFolder, FormatWarning } from '../../src/formats/types.js';
import { baseFolder, expectCode, TINY, tinyTensors } from './fixtures.js';

interface Golden {
  layers: number;
  /** module → [rank, scale] as PEFT made them. */
  cases: { config: Record<string, unknown>; modules: Record<string, [number, number]> }[];
}
const golden = JSON.parse(readFileSync(new URL('golden/targets.golden.json', import.meta.url), 'utf8')) as Golden;

let base: BaseFolder;
beforeAll(async () => {
  const config = { ...TINY, num_hidden_layers: golden.layers };
  base = await readBaseFolder(await baseFolder(config, tinyTensors({ layers: golden.layers })));
});

function resolve(config: Record<string, unknown>, warnings: FormatWarning[] = []) {
  return resolveTargets(readLoraConfig({ peft_type: 'LORA', ...config }), base, warnings, new Pacer());
}

describe('the modules of an adapter', () => {
  test.each(golden.cases.map(({ config, modules }) => [JSON.stringify(config), config, modules] as const))(
    'are those of PEFT for %s',
    async (_, config, modules) => {
      const found = await resolve(config);
      expect(Object.fromEntries(found.map(({ site, rank, scale }) => [site.name, [rank, scale]]))).toEqual(modules);
    },
  );

  test('are sorted by site number', async () => {
    const numbers = (await resolve({ target_modules: ['embed_tokens', 'lm_head', 'q_proj', 'up_proj'] })).map(
      ({ site }) => site.site,
    );
    expect(numbers).toEqual([...numbers].sort((a, b) => a - b));
    expect(numbers.slice(-2)).toEqual([36, 37]);
  });

  test('a name that matches nothing is a warning beside one that does', async () => {
    const warnings: FormatWarning[] = [];
    await resolve({ target_modules: ['q_proj', 'c_attn'] }, warnings);
    expect(warnings).toEqual([{ code: 'WARN_ADAPTER_TARGET', message: expect.stringContaining('c_attn') }]);
  });

  const refusals: [string, Record<string, unknown>, string, RegExp][] = [
    ['no module of the base', { target_modules: ['c_attn'] }, 'ERR_ADAPTER_TARGETS', /c_attn/],
    ['a norm', { target_modules: ['q_proj', 'input_layernorm'] }, 'ERR_ADAPTER_TARGETS', /input_layernorm/],
    ['containers by pattern', { target_modules: '.*self_attn.*' }, 'ERR_ADAPTER_TARGETS', /layers\.0\.self_attn,/],
    [
      'everything excluded',
      { target_modules: ['q_proj'], exclude_modules: ['q_proj'] },
      'ERR_ADAPTER_TARGETS',
      /q_proj/,
    ],
    ['a layer outside', { target_modules: ['q_proj'], layers_to_transform: [0, 4] }, 'ERR_ADAPTER_LAYER', /layer 4/],
    ['a negative layer', { target_modules: ['q_proj'], layers_to_transform: -1 }, 'ERR_ADAPTER_LAYER', /layer -1/],
    ['a named module outside', { target_modules: ['model.layers.4.mlp.up_proj'] }, 'ERR_ADAPTER_LAYER', /layers\.4/],
    ['no targets', { target_modules: null }, 'ERR_ADAPTER_CONFIG', /target_modules/],
    [
      'layers beside a pattern',
      { target_modules: '.*q_proj', layers_to_transform: 0 },
      'ERR_ADAPTER_CONFIG',
      /target_modules/,
    ],
    [
      'layers_pattern alone',
      { target_modules: ['q_proj'], layers_pattern: 'layers' },
      'ERR_ADAPTER_CONFIG',
      /layers_to_transform/,
    ],
    ['a bad pattern', { target_modules: '(' }, 'ERR_ADAPTER_PATTERN', /\(/],
    ['a bad rank key', { target_modules: ['q_proj'], rank_pattern: { '(?i)q': 2 } }, 'ERR_ADAPTER_PATTERN', /\(\?i\)/],
  ];
  test.each(refusals)('refuse %s', async (_, config, code, text) => {
    await expectCode(
      Promise.resolve().then(() => resolve(config)),
      code,
      text,
    );
  });
});
