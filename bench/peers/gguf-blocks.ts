// ggml's tensor types: how many elements and bytes a block has, and blocks of random numbers.
//
// The numbers are uniform and have a standard deviation near 0.02, so that activations stay finite through any number of
// layers; nothing else is asked of them, since only speed is measured.

/** `number` is what the tensor table of a GGUF file says. */
export const BLOCKS = {
  f32: { number: 0, elements: 1, bytes: 4 },
  f16: { number: 1, elements: 1, bytes: 2 },
  bf16: { number: 30, elements: 1, bytes: 2 },
  q4_0: { number: 2, elements: 32, bytes: 18 },
  q5_0: { number: 6, elements: 32, bytes: 22 },
  q8_0: { number: 8, elements: 32, bytes: 34 },
  q4_k: { number: 12, elements: 256, bytes: 144 },
  q6_k: { number: 14, elements: 256, bytes: 210 },
} as const;
export type TensorType = keyof typeof BLOCKS;

const POOL_BYTES = 4 << 20;
const pools: Partial<Record<TensorType, Buffer>> = {};

/** Some MiB of whole blocks, made once; always the same. */
export function randomBlocks(type: TensorType): Buffer {
  return (pools[type] ??= makePool(type));
}

/** A normal number in f16, for scales: `2^exponent`, -14 to 15, times 1 to 2 by 10 random bits. */
const f16Near = (exponent: number, random: number) => ((exponent + 15) << 10) | (random & 0x3ff);

/** Sets what must not be random in a block that is: its scales. */
const FINISH: Record<TensorType, (block: Buffer, random: () => number) => void> = {
  // ±2^-6 to 2^-5.
  f32: (block, random) => block.writeUInt32LE(((random() & 0x807fffff) | (121 << 23)) >>> 0),
  f16: (block, random) => block.writeUInt16LE((random() & 0x8000) | f16Near(-6, random())),
  bf16: (block, random) => block.writeUInt16LE((random() & 0x807f) | (121 << 7)),
  // A scale, then numbers from -8 to 7, -16 to 15 and -128 to 127.
  q4_0: (block, random) => block.writeUInt16LE(f16Near(-8, random())),
  q5_0: (block, random) => block.writeUInt16LE(f16Near(-9, random())),
  q8_0: (block, random) => block.writeUInt16LE(f16Near(-12, random())),
  // scale · (6 bits) · (0 to 15) - minimum · (6 bits): the minimum is 7.5 scales, and the mean 0.
  q4_k: (block) => {
    block.writeUInt16LE(f16Near(-13, 0));
    block.writeUInt16LE(f16Near(-11, 0x380), 2);
  },
  // scale · (a scale of 16 elements, 8 bits, here -8 to 7) · (-32 to 31)
  q6_k: (block, random) => {
    for (let i = 192; i < 208; i++) block.writeInt8((random() & 15) - 8, i);
    block.writeUInt16LE(f16Near(-12, random()), 208);
  },
};

function makePool(type: TensorType): Buffer {
  const { bytes } = BLOCKS[type];
  const pool = Buffer.alloc(Math.floor(POOL_BYTES / bytes) * bytes);
  let state = 0x9e3779b9;
  const random = () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
  for (let i = 0; i + 4 <= pool.length; i += 4) pool.writeUInt32LE(random(), i);
  for (let i = 0; i < pool.length; i += bytes) FINISH[type](pool.subarray(i, i + bytes), random);
  return pool;
}
