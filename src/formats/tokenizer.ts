import { OpenLoraError } from '../errors.js';
import type { OpenTokenizerOptions, Tokenizer } from './tokenizer-types.js';

export type * from './tokenizer-types.js';

/** Opens the tokenizer of a Hugging Face model folder. */
export function openTokenizer(_options: OpenTokenizerOptions): Promise<Tokenizer> {
  return Promise.reject(new OpenLoraError('ERR_NOT_IMPLEMENTED', 'openTokenizer is on its way'));
}
