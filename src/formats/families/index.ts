import { OpenLoraError } from '../../errors.js';
import type { ConfigReader } from '../config-reader.js';
import type { Family } from './family.js';
import { gemma2 } from './gemma2.js';
import { gemma3 } from './gemma3.js';
import { granite } from './granite.js';
import { llama } from './llama.js';
import { mistral } from './mistral.js';
import { olmo2 } from './olmo2.js';
import { phi3 } from './phi3.js';
import { qwen2 } from './qwen2.js';
import { qwen3 } from './qwen3.js';
import { smollm3 } from './smollm3.js';

export const FAMILIES: readonly Family[] = [
  llama,
  mistral,
  qwen2,
  qwen3,
  gemma2,
  gemma3,
  phi3,
  smollm3,
  olmo2,
  granite,
];

/** The family of a config. Throws ERR_BASE_ARCHITECTURE with the list of those that are supported. */
export function findFamily(config: ConfigReader): Family {
  const [architecture] = config.strings('architectures');
  const modelType = config.get('model_type');
  const family = FAMILIES.find((f) =>
    architecture === undefined ? f.modelType === modelType : f.architecture === architecture,
  );
  if (family) return family;
  const got = architecture ?? (typeof modelType === 'string' ? `model_type ${modelType}` : 'none given');
  const supported = FAMILIES.map((f) => f.architecture).join(', ');
  throw new OpenLoraError('ERR_BASE_ARCHITECTURE', `architecture ${got} is not supported; supported are ${supported}`, {
    architecture: got,
  });
}
