// Shapes of bases that many adapters are made for, from the config.json that each was published with: what a misfit was
// probably trained on. hidden, layers, intermediate, key and value width.

import type { AdapterExtents } from '../formats/adapter-examination.js';

type Shape = readonly [hidden: number, layers: number, intermediate: number, kvWidth: number];

const KNOWN: readonly (readonly [name: string, shape: Shape])[] = [
  ['Llama 2 7B', [4096, 32, 11008, 4096]],
  ['Llama 2 13B', [5120, 40, 13824, 5120]],
  ['Llama 3 8B', [4096, 32, 14336, 1024]],
  ['Llama 3 70B', [8192, 80, 28672, 1024]],
  ['Llama 3.2 1B', [2048, 16, 8192, 512]],
  ['Llama 3.2 3B', [3072, 28, 8192, 1024]],
  ['TinyLlama 1.1B', [2048, 22, 5632, 256]],
  ['SmolLM2 135M', [576, 30, 1536, 192]],
  ['SmolLM2 360M', [960, 32, 2560, 320]],
  ['SmolLM2 1.7B', [2048, 24, 8192, 2048]],
  ['SmolLM3 3B', [2048, 36, 11008, 512]],
  ['Mistral 7B', [4096, 32, 14336, 1024]],
  ['Mistral Nemo 12B', [5120, 40, 14336, 1024]],
  ['Qwen2.5 0.5B', [896, 24, 4864, 128]],
  ['Qwen2.5 1.5B', [1536, 28, 8960, 256]],
  ['Qwen2.5 3B', [2048, 36, 11008, 256]],
  ['Qwen2.5 7B', [3584, 28, 18944, 512]],
  ['Qwen2.5 14B', [5120, 48, 13824, 1024]],
  ['Qwen2.5 32B', [5120, 64, 27648, 1024]],
  ['Qwen2.5 72B', [8192, 80, 29568, 1024]],
  ['Qwen3 0.6B', [1024, 28, 3072, 1024]],
  ['Qwen3 1.7B', [2048, 28, 6144, 1024]],
  ['Qwen3 4B', [2560, 36, 9728, 1024]],
  ['Qwen3 8B', [4096, 36, 12288, 1024]],
  ['Qwen3 14B', [5120, 40, 17408, 1024]],
  ['Qwen3 32B', [5120, 64, 25600, 1024]],
  ['Gemma 2 2B', [2304, 26, 9216, 1024]],
  ['Gemma 2 9B', [3584, 42, 14336, 2048]],
  ['Gemma 2 27B', [4608, 46, 36864, 2048]],
  ['Gemma 3 270M', [640, 18, 2048, 256]],
  ['Gemma 3 1B', [1152, 26, 6912, 256]],
  ['Gemma 3 4B', [2560, 34, 10240, 1024]],
  ['Gemma 3 12B', [3840, 48, 15360, 2048]],
  ['Gemma 3 27B', [5376, 62, 21504, 2048]],
  ['Phi-3-mini', [3072, 32, 8192, 3072]],
  ['Phi-3-medium', [5120, 40, 17920, 1280]],
  ['Phi-4', [5120, 40, 17920, 1280]],
  ['Phi-4-mini', [3072, 32, 8192, 1024]],
  ['OLMo 2 1B', [2048, 16, 8192, 2048]],
  ['OLMo 2 7B', [4096, 32, 11008, 4096]],
  ['OLMo 2 13B', [5120, 40, 13824, 5120]],
  ['OLMo 2 32B', [5120, 64, 27648, 1024]],
  ['Granite 3 2B', [2048, 40, 8192, 512]],
  ['Granite 3 8B', [4096, 40, 12800, 1024]],
];

/** Fewer sizes than this fit too many bases. */
const SIZES_MIN = 2;

/** Names of the bases that have all the sizes that an adapter tells. */
export function basesLike(extents: AdapterExtents): string[] {
  const { hidden, layers, intermediate, kvWidth } = extents;
  const told = [hidden, layers, intermediate, kvWidth];
  if (told.filter((size) => size !== undefined).length < SIZES_MIN) return [];
  return KNOWN.filter(([, shape]) => shape.every((size, i) => told[i] === undefined || told[i] === size)).map(
    ([name]) => name,
  );
}
