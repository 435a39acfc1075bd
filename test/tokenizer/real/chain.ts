// A checkpoint whose greedy answer after token i is i + 1, i + 2, …: whoever gives the tokens their bytes has the real engine
// say what he wants. Token i is three digits to the base 64, each a point on a circle; the row of the head is the point of
// the token before. Attention and the MLP add nothing.

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';

const BASE = 64;
const [HIDDEN, INTERMEDIATE, HEADS] = [16, 16, 2];
/** Makes the logits of neighbours differ by half and more. */
const HEAD_SCALE = 50;

/** Rows of `[vocab, hidden]`, that of token i for number i + shift. */
function digits(vocab: number, shift: number, scale: number): Float32Array {
  const rows = new Float32Array(vocab * HIDDEN);
  for (let i = 0; i < vocab; i++) {
    let left = i + shift + BASE ** 3;
    for (let digit = 0; digit < 3; digit++, left = Math.floor(left / BASE)) {
      const angle = (2 * Math.PI * (left % BASE)) / BASE;
      rows[i * HIDDEN + 2 * digit] = scale * Math.cos(angle);
      rows[i * HIDDEN + 2 * digit + 1] = scale * Math.sin(angle);
    }
  }
  return rows;
}

/** config.json and model.safetensors of a chain of `vocab` tokens, at most 64³, into an empty folder. */
export function writeChain(folder: string, vocab: number): void {
  const square = [HIDDEN, HIDDEN];
  const layer = 'model.layers.0.';
  const tensors: [name: string, shape: number[], values?: Float32Array][] = [
    ['model.embed_tokens.weight', [vocab, HIDDEN], digits(vocab, 0, 1)],
    ['lm_head.weight', [vocab, HIDDEN], digits(vocab, -1, HEAD_SCALE)],
    ['model.norm.weight', [HIDDEN], new Float32Array(HIDDEN).fill(1)],
    ...['q', 'k', 'v', 'o'].map((name): [string, number[]] => [`${layer}self_attn.${name}_proj.weight`, square]),
    ...['gate', 'up', 'down'].map((name): [string, number[]] => [`${layer}mlp.${name}_proj.weight`, square]),
    [`${layer}input_layernorm.weight`, [HIDDEN]],
    [`${layer}post_attention_layernorm.weight`, [HIDDEN]],
  ];
  const header: Record<string, object> = {};
  const data: Buffer[] = [];
  let end = 0;
  for (const [name, shape, values = new Float32Array(shape.reduce((a, b) => a * b, 1))] of tensors) {
    header[name] = { dtype: 'F32', shape, data_offsets: [end, (end += values.byteLength)] };
    data.push(Buffer.from(values.buffer));
  }
  const text = JSON.stringify(header);
  const head = Buffer.alloc(8 + Math.ceil(text.length / 8) * 8, ' ');
  head.writeBigUInt64LE(BigInt(head.length - 8));
  head.write(text, 8);
  writeFileSync(join(folder, 'model.safetensors'), Buffer.concat([head, ...data]));
  const config = {
    ...{ architectures: ['LlamaForCausalLM'], model_type: 'llama', hidden_act: 'silu', rms_norm_eps: 1e-6 },
    ...{ vocab_size: vocab, hidden_size: HIDDEN, intermediate_size: INTERMEDIATE, num_hidden_layers: 1 },
    ...{ num_attention_heads: HEADS, num_key_value_heads: HEADS, max_position_embeddings: 1024 },
    ...{ tie_word_embeddings: false, rope_theta: 10_000, eos_token_id: null },
  };
  writeFileSync(join(folder, 'config.json'), JSON.stringify(config));
}
