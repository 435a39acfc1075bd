// GGUF files of bench/peers, read back by a reader of its own.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { GGUF_FORMATS, modelTensors, typesOf, writeLora, writeModel } from '../../bench/peers/gguf-model.js';
import { writeGguf } from '../../bench/peers/gguf.js';
import { namedShape, type Shape } from '../../src/cli/bench/shapes.js';
import { blockValues, halfToNumber, readGguf } from './gguf-reader.js';

const TINY = namedShape('tiny');
/** Small, with biases, tied embeddings, and rows that aren't blocks of 256. */
const QWEN: Shape = {
  ...namedShape('qwen2.5-0.5b'),
  ...{ name: 'small-qwen', layers: 8, hidden: 224, heads: 7, kvHeads: 1, headDim: 32, intermediate: 512, vocab: 320 },
};

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'openlora-gguf-test-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

async function written(shape: Shape, format: (typeof GGUF_FORMATS)[number]) {
  const path = join(folder, `${shape.name}-${format}.gguf`);
  await writeModel(path, shape, format, { seed: 1 });
  return readGguf(path);
}

const cases = GGUF_FORMATS.flatMap((format) => [TINY, QWEN].map((shape) => ({ name: shape.name, format, shape })));

describe.each(cases)('a GGUF file of $name in $format', ({ shape, format }) => {
  it('has version 3, an alignment, and tensors that follow one another up to the end of the file', async () => {
    const { version, metadata, tensors, dataBegin, bytes } = await written(shape, format);
    expect(version).toBe(3);
    expect(metadata.get('general.alignment')).toBe(32);
    let end = dataBegin;
    for (const tensor of tensors) {
      expect(tensor.begin % 32, tensor.name).toBe(0);
      expect(tensor.begin - end, tensor.name).toBeGreaterThanOrEqual(0);
      expect(tensor.begin - end, tensor.name).toBeLessThan(32);
      end = tensor.end;
    }
    expect(bytes.length).toBe(Math.ceil(end / 32) * 32);
  });

  it('holds the numbers of the shape and a token for each row of the embedding', async () => {
    const { metadata, tensors } = await written(shape, format);
    const family = metadata.get('general.architecture');
    expect(family).toBe(shape === TINY ? 'llama' : 'qwen2');
    const number = (key: string) => metadata.get(`${String(family)}.${key}`);
    expect(number('block_count')).toBe(shape.layers);
    expect(number('embedding_length')).toBe(shape.hidden);
    expect(number('feed_forward_length')).toBe(shape.intermediate);
    expect(number('attention.head_count')).toBe(shape.heads);
    expect(number('attention.head_count_kv')).toBe(shape.kvHeads);
    expect(number('rope.freq_base')).toBe(shape.config.rope_theta);
    expect(number('rope.dimension_count')).toBe(shape.headDim);
    expect(number('attention.layer_norm_rms_epsilon')).toBe(Math.fround(Number(shape.config.rms_norm_eps)));
    const tokens = metadata.get('tokenizer.ggml.tokens') as string[];
    expect(new Set(tokens).size).toBe(shape.vocab);
    expect((metadata.get('tokenizer.ggml.token_type') as number[]).length).toBe(shape.vocab);
    expect((metadata.get('tokenizer.ggml.scores') as number[]).length).toBe(shape.vocab);
    expect(tensors.find(({ name }) => name === 'token_embd.weight')!.dims).toEqual([shape.hidden, shape.vocab]);
  });

  it('has every tensor of every layer, and a head only if the embedding is not tied', async () => {
    const { tensors } = await written(shape, format);
    const dims = new Map(tensors.map((tensor) => [tensor.name, tensor.dims]));
    expect(dims.size).toBe(tensors.length);
    const kv = shape.kvHeads * shape.headDim;
    for (let layer = 0; layer < shape.layers; layer++) {
      const of = (name: string) => dims.get(`blk.${layer}.${name}`);
      expect(of('attn_q.weight')).toEqual([shape.hidden, shape.hidden]);
      expect(of('attn_k.weight')).toEqual([shape.hidden, kv]);
      expect(of('attn_v.weight')).toEqual([shape.hidden, kv]);
      expect(of('attn_output.weight')).toEqual([shape.hidden, shape.hidden]);
      expect(of('ffn_gate.weight')).toEqual([shape.hidden, shape.intermediate]);
      expect(of('ffn_up.weight')).toEqual([shape.hidden, shape.intermediate]);
      expect(of('ffn_down.weight')).toEqual([shape.intermediate, shape.hidden]);
      expect(of('attn_norm.weight')).toEqual([shape.hidden]);
      expect(of('ffn_norm.weight')).toEqual([shape.hidden]);
      expect(of('attn_v.bias')).toEqual(shape === TINY ? undefined : [kv]);
    }
    expect(dims.get('output.weight')).toEqual(shape === TINY ? [shape.hidden, shape.vocab] : undefined);
    const perLayer = shape === TINY ? 9 : 12;
    expect(tensors.length).toBe(shape.layers * perLayer + (shape === TINY ? 3 : 2));
  });

  it('has blocks of finite numbers of the size of weights, around 0, and gains of 1', async () => {
    const file = await written(shape, format);
    for (const { name, type, begin, end } of file.tensors) {
      const blockBytes = { 0: 4, 1: 2, 2: 18, 6: 22, 8: 34, 12: 144, 14: 210, 30: 2 }[type]!;
      const values: number[] = [];
      for (let at = begin; at < end && values.length < 4096; at += blockBytes)
        values.push(...blockValues(file, type, at));
      if (name.endsWith('norm.weight')) {
        expect(new Set(values), name).toEqual(new Set([1]));
        continue;
      }
      const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
      const deviation = Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / values.length);
      expect(deviation, name).toBeGreaterThan(0.01);
      expect(deviation, name).toBeLessThan(0.05);
      // Six standard errors, of numbers that share scales by 32: as if there were a sixteenth of them.
      expect(Math.abs(mean), name).toBeLessThan((6 * deviation) / Math.sqrt(values.length / 16));
    }
  });
});

describe('the types of tensors', () => {
  const typeOf = (shape: Shape, format: (typeof GGUF_FORMATS)[number]) => {
    const types = new Map(modelTensors(shape, format).map(({ name, type }) => [name, type]));
    return (name: string) => types.get(name);
  };

  it('Q4_K_M gives values and down projections of some layers six bits, and the head', () => {
    const of = typeOf(namedShape('tinyllama'), 'q4_k_m');
    const layers = Array.from({ length: 22 }, (_, i) => i);
    const favoured = layers.filter((i) => of(`blk.${i}.ffn_down.weight`) === 'q6_k');
    expect(favoured).toEqual([0, 1, 4, 7, 10, 13, 16, 19, 20, 21]);
    expect(layers.filter((i) => of(`blk.${i}.attn_v.weight`) === 'q6_k')).toEqual(favoured);
    expect(layers.every((i) => of(`blk.${i}.ffn_up.weight`) === 'q4_k')).toBe(true);
    expect(of('output.weight')).toBe('q6_k');
    expect(of('token_embd.weight')).toBe('q4_k');
  });

  it('rows of 896 are no blocks of 256: they take the next larger type', () => {
    const of = typeOf(namedShape('qwen2.5-0.5b'), 'q4_k_m');
    expect(of('blk.5.attn_q.weight')).toBe('q5_0');
    expect(of('blk.0.attn_v.weight')).toBe('q8_0');
    expect(of('blk.0.ffn_down.weight')).toBe('q6_k');
    expect(of('blk.3.ffn_down.weight')).toBe('q4_k');
    expect(of('token_embd.weight')).toBe('q8_0');
    expect(typeOf(namedShape('qwen2.5-0.5b'), 'q4_0')('token_embd.weight')).toBe('q8_0');
  });

  it('are said in words', () => {
    expect(typesOf(TINY, 'q8_0')).toBe('30 q8_0, 9 f32; logits by q8_0');
    expect(typesOf(TINY, 'q4_0')).toBe('29 q4_0, 9 f32, 1 q6_k; logits by q6_k');
  });
});

describe('a LoRA adapter as GGUF', () => {
  it('has A and B of every linear module in f16, its rank and twice that as alpha', async () => {
    const path = join(folder, 'lora.gguf');
    await writeLora(path, QWEN, 3, { seed: 7 });
    const { metadata, tensors, bytes } = readGguf(path);
    expect(Object.fromEntries(metadata)).toEqual({
      'general.architecture': 'qwen2',
      'general.type': 'adapter',
      'adapter.type': 'lora',
      'adapter.lora.alpha': 6,
      'general.alignment': 32,
    });
    expect(tensors.length).toBe(QWEN.layers * 7 * 2);
    const dims = new Map(tensors.map((tensor) => [tensor.name, tensor.dims]));
    expect(dims.get('blk.7.ffn_down.weight.lora_a')).toEqual([512, 3]);
    expect(dims.get('blk.7.ffn_down.weight.lora_b')).toEqual([3, 224]);
    expect(tensors.every(({ type }) => type === 1)).toBe(true);
    expect(Number.isFinite(halfToNumber(bytes.readUInt16LE(tensors[0]!.begin)))).toBe(true);
  });

  it('is another one with another seed', async () => {
    const [one, other] = [join(folder, 'one.gguf'), join(folder, 'other.gguf')];
    await writeLora(one, QWEN, 3, { seed: 1 });
    await writeLora(other, QWEN, 3, { seed: 2 });
    const [a, b] = [readGguf(one), readGguf(other)];
    expect(a.bytes.subarray(0, a.dataBegin).equals(b.bytes.subarray(0, b.dataBegin))).toBe(true);
    expect(a.bytes.equals(b.bytes)).toBe(false);
  });
});

describe('refusals', () => {
  it('rows that are no whole blocks', async () => {
    const tensor = { name: 'x', dims: [100, 2], type: 'q8_0' } as const;
    await expect(writeGguf(join(folder, 'x.gguf'), {}, [tensor], { seed: 1 })).rejects.toThrow(
      'x: rows of 100 elements are no whole blocks of 32 (q8_0)',
    );
  });

  it('families that llama.cpp calls otherwise', async () => {
    const shape = { ...TINY, config: { ...TINY.config, model_type: 'qwen3' } };
    await expect(writeModel(join(folder, 'x.gguf'), shape, 'f16', { seed: 1 })).rejects.toThrow(
      'tiny is a qwen3, wanted llama or qwen2',
    );
  });
});
