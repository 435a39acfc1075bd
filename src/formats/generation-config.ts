// What generation_config.json may say besides the defaults of `generate`.

import type { ConfigReader } from './config-reader.js';
import type { FormatWarning } from './types.js';

/** Above 0 and finite, also as the engine's float32. */
export function isRepetitionPenalty(value: number): boolean {
  return Math.fround(value) > 0 && Math.fround(value) < Infinity;
}

/** What transformers' `generate` takes from the file, with the values that change nothing; null and [] never do. */
const NEUTRAL: Readonly<Record<string, number | boolean | undefined>> = {
  max_new_tokens: undefined,
  stop_strings: undefined,
  num_beams: 1,
  num_beam_groups: 1,
  penalty_alpha: 0,
  dola_layers: undefined,
  constraints: undefined,
  force_words_ids: undefined,
  token_healing: false,
  guidance_scale: 1,
  min_length: 0,
  min_new_tokens: 0,
  no_repeat_ngram_size: 0,
  encoder_no_repeat_ngram_size: 0,
  encoder_repetition_penalty: 1,
  exponential_decay_length_penalty: undefined,
  bad_words_ids: undefined,
  sequence_bias: undefined,
  suppress_tokens: undefined,
  begin_suppress_tokens: undefined,
  forced_bos_token_id: undefined,
  forced_eos_token_id: undefined,
  watermarking_config: undefined,
  top_h: undefined,
  typical_p: 1,
  epsilon_cutoff: 0,
  eta_cutoff: 0,
};

/** One for each key whose value would change answers in transformers and that nothing here applies. */
export function ignoredSettings(generation: ConfigReader): FormatWarning[] {
  return Object.entries(NEUTRAL)
    .filter(([key, neutral]) => {
      const value = generation.get(key);
      return value !== undefined && value !== neutral && !(Array.isArray(value) && value.length === 0);
    })
    .map(([key]) => ({
      code: 'WARN_BASE_GENERATION',
      message: `generation_config.json: ${key} is not supported and not applied`,
    }));
}
