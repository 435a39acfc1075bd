// What `registerAdapter` was given in place of a folder: checked, and as a folder would hold it.

import { isUint8Array } from 'node:util/types';
import { OpenLoraError } from '../errors.js';
import { CONFIG_BYTES_MAX, type JsonObject } from '../formats/json.js';
import { RANK_MAX } from '../formats/peft.js';
import { SAFETENSORS_HEADER_BYTES_MAX } from '../formats/safetensors.js';
import type { BaseFolder } from '../formats/types.js';
import { endStream, type ByteSource } from './spool.js';
import type { AdapterFiles } from './types.js';
import { checkKeys, checkObject, checkPath, checkText, invalid } from './validate.js';

export interface CheckedFiles {
  config: JsonObject;
  tensors: ByteSource;
  chatTemplate: string | undefined;
}

/** A folder's path, or files in memory. */
export type AdapterSource = string | CheckedFiles;

// prettier-ignore
const FILES_KEYS = { config: 0, tensors: 0, chatTemplate: 0 } satisfies Record<keyof AdapterFiles, 0>;
/** Of a safetensors header, for each tensor and for its metadata: names are below 200 characters. */
const ENTRY_BYTES = 1 << 10;
const METADATA_BYTES = 1 << 20;

export function checkAdapterSource(source: unknown): AdapterSource {
  if (typeof source !== 'object' || source === null || Array.isArray(source)) return checkPath('source', source);
  const files = source as Partial<Record<keyof AdapterFiles, unknown>>;
  checkKeys('source', files, FILES_KEYS);
  const { tensors, chatTemplate } = files;
  return {
    config: copyConfig(files.config),
    tensors: checkTensors(tensors),
    chatTemplate:
      chatTemplate === undefined ? undefined : checkText('source.chatTemplate', chatTemplate, 0, CONFIG_BYTES_MAX),
  };
}

/** Tells a stream in what won't be used to let go. Never throws. */
export function letGoOf(source: unknown): void {
  if (typeof source !== 'object' || source === null) return;
  const { tensors } = source as Partial<Record<keyof AdapterFiles, unknown>>;
  if (typeof tensors === 'object' && tensors !== null && Symbol.asyncIterator in tensors) {
    void endStream(tensors as AsyncIterable<unknown>);
  }
}

function checkTensors(value: unknown): ByteSource {
  if (isUint8Array(value)) return value;
  const isStream =
    typeof value === 'object' &&
    value !== null &&
    typeof (value as Partial<AsyncIterable<unknown>>)[Symbol.asyncIterator] === 'function';
  if (!isStream) invalid('source.tensors', value, 'a Uint8Array or an async iterable of them');
  return value as AsyncIterable<Uint8Array>;
}

/** The config as JSON would bring it: the caller's object may change afterwards, and JSON has no NaN. */
function copyConfig(value: unknown): JsonObject {
  checkObject('source.config', value);
  let text: string;
  try {
    text =
      JSON.stringify(value, (key, part: unknown) => {
        const isJson =
          typeof part === 'number' ? Number.isFinite(part) : typeof part !== 'function' && typeof part !== 'symbol';
        if (!isJson) throw new TypeError(`${key} is ${String(part)}, which JSON doesn't have`);
        return part;
      }) ?? 'null';
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new OpenLoraError('ERR_ADAPTER_CONFIG', `source.config is not JSON: ${why}`, {}, cause);
  }
  if (text.length > CONFIG_BYTES_MAX) {
    throw new OpenLoraError(
      'ERR_ADAPTER_CONFIG',
      `source.config has ${text.length} characters, more than ${CONFIG_BYTES_MAX}`,
    );
  }
  return checkObject('source.config', JSON.parse(text));
}

/**
 * Bytes of the largest adapter that a base can have in memory: float32 matrices of the highest rank on every site, copies
 * of embedding and head, which PEFT saves along, and the header. PEFT saves no other base tensors.
 */
export function adapterBytesMax({ sites, spec }: Pick<BaseFolder, 'sites' | 'spec'>): number {
  const matrices = sites.reduce((sum, site) => sum + RANK_MAX * (site.in + site.out), 0);
  const saved = 2 * spec.vocab * spec.hidden;
  const header = METADATA_BYTES + ENTRY_BYTES * (2 * sites.length + 2);
  return 4 * (matrices + saved) + 8 + Math.min(SAFETENSORS_HEADER_BYTES_MAX, header);
}
