// How the tensors of an adapter are named. PEFT writes `base_model.model.<module>.lora_A.weight` ([rank, in]) and
// `.lora_B.weight` ([out, rank]); for an embedding `.lora_embedding_A` ([rank, vocabulary]) and `.lora_embedding_B`
// ([hidden, rank]); beside them perhaps a base tensor. Two other spellings are read, each for a whole adapter:
//
//   without `base_model.model.`       transformers' save_pretrained with save_peft_format=False
//   `.lora_A.<adapter>.weight`        the adapter's name left in: a state dict that was saved as the model has it, by a
//   `.lora_embedding_A.<adapter>`     trainer of one's own; PEFT reads it when it loads under the same name
//
// Both are the same tensors; no other change of names touches a decoder of text. Names that a wrapper left in
// (`_orig_mod.`, `module.`, `_fsdp_wrapped_module.`) or a model that also sees (`language_model.`) are refused: PEFT
// passes over them and then computes the base alone.
//
// | code                       | meaning                                                                            |
// |----------------------------|------------------------------------------------------------------------------------|
// | ERR_ADAPTER_TENSOR_SURPLUS | a name that is no part of LoRA, or that is spelled otherwise than the others       |
// | ERR_ADAPTER_DORA, _BIAS, _LORA_BIAS, _MODULES_TO_SAVE, _TRAINABLE_TOKENS: such a tensor is there, whatever the config says |

import { OpenLoraError } from '../errors.js';

const PREFIX = 'base_model.model.';

/** Modules that some families have as one: the rows of each stand one after the other. */
const FUSED: Readonly<Record<string, readonly string[]>> = {
  qkv_proj: ['q_proj', 'k_proj', 'v_proj'],
  gate_up_proj: ['gate_proj', 'up_proj'],
};

/**
 * Where a module is missing because a base fuses what others have apart, or the other way round: what the base has, in
 * words. `has` says whether the base has a module; the name may be one without its path.
 */
export function fusedOtherwise(module: string, has: (module: string) => boolean): string | undefined {
  const [, path, last] = /^(.*\.)?([^.]*)$/s.exec(module)!;
  for (const [whole, parts] of Object.entries(FUSED)) {
    const all = `${parts.slice(0, -1).join(', ')} and ${parts.at(-1)}`;
    if (parts.includes(last!) && has(`${path ?? ''}${whole}`)) return `this base has ${all} fused as ${whole}`;
    if (last === whole && parts.every((part) => has(`${path ?? ''}${part}`)))
      return `this base has ${all} in place of ${whole}`;
  }
  return undefined;
}

/** What a tensor's name says. */
export interface AdapterTensorName {
  /** As the base has it, without `base_model.model.`. */
  module: string;
  kind: 'A' | 'B' | 'embedding-A' | 'embedding-B' | 'base-weight' | 'base-bias';
}

interface SpelledName extends AdapterTensorName {
  hasPrefix: boolean;
  /** The adapter's name, where a LoRA tensor's has it. */
  adapter?: string;
}

/** `module`, `half`, and `adapter`, which PEFT leaves out. torch lets no module's name have a dot. */
const LORA = /^(?<module>.+)\.lora_(?<half>[AB])(?:\.(?<adapter>[^.]+))?\.weight$/;
const EMBEDDING = /^(?<module>.+)\.lora_embedding_(?<half>[AB])(?:\.(?<adapter>[^.]+))?$/;
const BASE = /^(?<module>.+)\.base_layer\.(?<half>weight|bias)$/;
/** PEFT saves these whole when the vocabulary was resized, or when it believes so. */
const WHOLE = /^(?<module>lm_head|(?:.*\.)?embed_tokens)\.(?<half>weight)$/;

const KINDS: readonly [pattern: RegExp, kind: (half: string) => AdapterTensorName['kind']][] = [
  [LORA, (half) => half as 'A' | 'B'],
  [EMBEDDING, (half) => `embedding-${half as 'A' | 'B'}`],
  [BASE, (half) => `base-${half as 'weight' | 'bias'}`],
  [WHOLE, () => 'base-weight'],
];

const REFUSED_NAMES: readonly [pattern: RegExp, kind: string, what: string][] = [
  [/\.lora_magnitude_vector/, 'DORA', "DoRA's magnitudes"],
  [/\.lora_[AB](?:\.[^.]+)?\.bias$/, 'LORA_BIAS', 'a bias of lora_A or lora_B'],
  [/\.modules_to_save\./, 'MODULES_TO_SAVE', 'a fully trained module'],
  [/\.(?:token_adapter|trainable_tokens)/, 'TRAINABLE_TOKENS', 'trained token rows'],
  [/\.bias$/, 'BIAS', 'a trained bias'],
];

/** Reads the names of one adapter, which are all spelled in one way: two spellings would be two adapters, or halves of them. */
export class AdapterNames {
  private first: { name: string; hasPrefix: boolean } | undefined;
  private firstLora: { name: string; adapter: string | undefined } | undefined;

  /** Throws the codes above. */
  read(name: string): AdapterTensorName {
    const { module, kind, hasPrefix, adapter } = parse(name);
    this.first ??= { name, hasPrefix };
    if (this.first.hasPrefix !== hasPrefix) throw spelledOtherwise(name, this.first.name);
    if (!kind.startsWith('base')) {
      this.firstLora ??= { name, adapter };
      if (this.firstLora.adapter !== adapter) throw spelledOtherwise(name, this.firstLora.name);
    }
    return { module, kind };
  }
}

function parse(name: string): SpelledName {
  const hasPrefix = name.startsWith(PREFIX);
  const rest = hasPrefix ? name.slice(PREFIX.length) : name;
  for (const [pattern, kindOf] of KINDS) {
    const found = pattern.exec(rest)?.groups;
    if (!found) continue;
    const { module, half, adapter } = found as { module: string; half: string; adapter: string | undefined };
    return { module, kind: kindOf(half), hasPrefix, ...(adapter === undefined ? {} : { adapter }) };
  }
  const refused = REFUSED_NAMES.find(([pattern]) => pattern.test(name));
  if (refused) throw nameError(refused[1], `tensor ${name} is ${refused[2]}, which is not supported`, name);
  throw nameError('TENSOR_SURPLUS', `tensor ${name} is not a part of a LoRA adapter`, name);
}

function spelledOtherwise(name: string, first: string): OpenLoraError {
  return nameError('TENSOR_SURPLUS', `tensor ${name} is spelled otherwise than ${first}: one of them is surplus`, name);
}

function nameError(kind: string, message: string, tensor: string): OpenLoraError {
  return new OpenLoraError(`ERR_ADAPTER_${kind}`, message, { tensor });
}
