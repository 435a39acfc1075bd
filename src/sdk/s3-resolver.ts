// Adapters in an S3-compatible store: `prefix/ID/adapter_config.json` and so on.

import { OpenLoraError } from '../errors.js';
import { CONFIG_BYTES_MAX, isJsonObject, type JsonObject } from '../formats/json.js';
import { encodePart, signedHeaders, type S3Credentials } from './aws-signature.js';
import { parseByteSize } from './byte-size.js';
import { partsOfName } from './confined-name.js';
import { openObject, readText, type FetchRules, type StoredObject } from './store-fetch.js';
import type { AdapterFiles, AdapterResolver, ByteSize } from './types.js';
import { checkInteger, checkKeys, checkObject, checkText, checkUrl, invalid } from './validate.js';

export type { S3Credentials } from './aws-signature.js';

export interface S3ResolverOptions {
  /** `https://s3.eu-central-1.amazonaws.com`, `http://minio:9000`. Buckets are named in the path. */
  endpoint: string;
  /** Of the signature; stores that have none take 'us-east-1', or 'auto'. */
  region: string;
  bucket: string;
  /**
   * Of every key: a relative name such as `adapters` or `models/lora`; perhaps each tenant's, looked up and not made of its name,
   * which is whatever a request says. Default: none.
   */
  prefix?: string | ((tenant: string | undefined) => string);
  /** Of all requests, or of each tenant; asked for each resolution. null: this tenant has none, and no adapters. */
  credentials:
    | S3Credentials
    | ((
        tenant: string | undefined,
        options: { signal: AbortSignal },
      ) => S3Credentials | null | Promise<S3Credentials | null>);
  /** Of an adapter's tensors; more is ERR_ADAPTER_SIZE. Default: '2GiB'. */
  maxBytes?: ByteSize;
  /** Of a request, and of a download that makes no progress, 1 to 100; pauses grow from 0.5 s, to 8 s at most. Default: 4. */
  attempts?: number;
  /** Milliseconds without a byte that end an attempt, 1 to 2^31 - 1. Default: 15,000. */
  idleMs?: number;
}

// prettier-ignore
const KEYS = {
  endpoint: 0, region: 0, bucket: 0, prefix: 0, credentials: 0, maxBytes: 0, attempts: 0, idleMs: 0,
} satisfies Record<keyof S3ResolverOptions, 0>;
const CREDENTIAL_KEYS = { accessKeyId: 0, secretAccessKey: 0, sessionToken: 0 } satisfies Record<
  keyof S3Credentials,
  0
>;
/** Of tokenizer_config.json, whose list of added tokens may be long. */
const TOKENIZER_BYTES_MAX = 16 << 20;

/**
 * A resolver that takes an id, `alice` or `team/alice`, for a part of the keys `prefix/ID/adapter_config.json`,
 * `…/adapter_model.safetensors` and, if they are there, `…/chat_template.jinja`, else tokenizer_config.json with a
 * `chat_template`. No config, and every id that isn't a relative name, is null. Requests are signed (AWS Signature Version 4);
 * a download goes on where it broke, and is compared with the store's SHA-256, or with an ETag that is an MD5. Throws for its
 * options; the resolver rejects with ERR_STORE (it can't be reached, or answers 5xx or 429, at every attempt),
 * ERR_STORE_REFUSED, ERR_STORE_DIGEST, ERR_ADAPTER_SIZE, ERR_ADAPTER_FILES, ERR_ADAPTER_CONFIG.
 */
export function s3Resolver(options: S3ResolverOptions): AdapterResolver {
  const o = checkObject('s3Resolver', options) as unknown as S3ResolverOptions;
  checkKeys('s3Resolver', o as unknown as Record<string, unknown>, KEYS);
  const endpoint = checkUrl('endpoint', o.endpoint);
  const region = checkText('region', o.region, 1, 64);
  const bucket = checkText('bucket', o.bucket, 1, 256);
  if (!/^[\w.-]+$/.test(bucket) || bucket.startsWith('.')) invalid('bucket', bucket, 'the name of a bucket');
  if (typeof o.prefix !== 'function') checkPrefix(o.prefix ?? '');
  if (typeof o.credentials !== 'function') checkCredentials(o.credentials);
  const bytesMax = parseByteSize('maxBytes', o.maxBytes ?? '2GiB');
  const attempts = checkInteger('attempts', o.attempts ?? 4, 1, 100);
  const idleMs = checkInteger('idleMs', o.idleMs ?? 15_000, 1, 2 ** 31 - 1);
  return async (id, { tenant, signal }) => {
    const name = partsOfName(id);
    if (name === undefined) return null;
    const given = typeof o.credentials === 'function' ? await o.credentials(tenant, { signal }) : o.credentials;
    if (given === null) return null;
    const credentials = checkCredentials(given);
    const prefix = checkPrefix(typeof o.prefix === 'function' ? o.prefix(tenant) : (o.prefix ?? ''));
    const object = (file: string): StoredObject => {
      const key = [bucket, ...prefix, ...name, file];
      const url = new URL(`${endpoint}/${key.map(encodePart).join('/')}`);
      return { name: `s3://${key.join('/')}`, request: (offset) => ({ url, headers: sign(url, offset, credentials) }) };
    };
    return await readAdapter(object, bytesMax, { attempts, idleMs, signal });
  };

  function sign(url: URL, offset: number, credentials: S3Credentials): Record<string, string> {
    // Those that proxies change are not signed.
    const signed = signedHeaders(url, { 'x-amz-checksum-mode': 'ENABLED' }, credentials, region, new Date());
    return { ...signed, 'accept-encoding': 'identity', ...(offset === 0 ? {} : { range: `bytes=${offset}-` }) };
  }
}

async function readAdapter(
  object: (file: string) => StoredObject,
  bytesMax: number,
  rules: FetchRules,
): Promise<AdapterFiles | null> {
  const config = object('adapter_config.json');
  const text = await readText(config, CONFIG_BYTES_MAX, rules);
  if (text === undefined) return null;
  const parsed = parseObject(config.name, text, 'ERR_ADAPTER_CONFIG');
  const chatTemplate = await readTemplate(object, rules);
  const weights = object('adapter_model.safetensors');
  const tensors = await openObject(weights, bytesMax, rules);
  if (tensors === undefined) {
    const message = `${weights.name} isn't there; adapters in several files, or in .bin, can't be read from a store`;
    throw new OpenLoraError('ERR_ADAPTER_FILES', message, { path: weights.name });
  }
  return { config: parsed, tensors, ...(chatTemplate === undefined ? {} : { chatTemplate }) };
}

async function readTemplate(object: (file: string) => StoredObject, rules: FetchRules): Promise<string | undefined> {
  const own = await readOptional(object('chat_template.jinja'), CONFIG_BYTES_MAX, rules);
  if (own !== undefined) return own;
  const tokenizer = object('tokenizer_config.json');
  const text = await readOptional(tokenizer, TOKENIZER_BYTES_MAX, rules);
  if (text === undefined) return undefined;
  const { chat_template: template } = parseObject(tokenizer.name, text, 'ERR_ADAPTER_TOKENIZER');
  if (template === undefined || template === null || typeof template === 'string') return template ?? undefined;
  const message = `${tokenizer.name} has several chat templates; put the one to use into chat_template.jinja beside it`;
  throw new OpenLoraError('ERR_ADAPTER_TOKENIZER', message, { path: tokenizer.name });
}

/** Beside a config that could be read: to keys that may read but not list, S3 says 403 of what isn't there. */
async function readOptional(object: StoredObject, bytesMax: number, rules: FetchRules): Promise<string | undefined> {
  try {
    return await readText(object, bytesMax, rules);
  } catch (error) {
    const isForbidden = OpenLoraError.is(error) && error.code === 'ERR_STORE_REFUSED' && error.details.status === 403;
    if (!isForbidden) throw error;
    return undefined;
  }
}

function parseObject(name: string, text: string, code: string): JsonObject {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new OpenLoraError(code, `${name} is no JSON: ${(cause as Error).message}`, { path: name }, cause);
  }
  if (isJsonObject(value)) return value;
  throw new OpenLoraError(code, `${name} is not a JSON object`, { path: name });
}

function checkPrefix(value: unknown): string[] {
  const text = checkText('prefix', value, 0, 1024).replace(/\/+$/, '');
  const parts = text === '' ? [] : partsOfName(text);
  if (parts === undefined) invalid('prefix', value, 'a relative name, such as models/lora');
  return parts;
}

function checkCredentials(value: unknown): S3Credentials {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) invalidSecret('credentials', 'an object');
  const o = checkObject('credentials', value);
  checkKeys('credentials', o, CREDENTIAL_KEYS);
  const secret = (key: keyof S3Credentials): string => {
    const part = o[key];
    // They become headers; one with a line break, as a file has it, would be told in the error of a request.
    if (typeof part === 'string' && /^[\x21-\x7e]+$/.test(part)) return part;
    return invalidSecret(`credentials.${key}`, 'a string of printable ASCII characters, no spaces or line breaks');
  };
  return {
    accessKeyId: secret('accessKeyId'),
    secretAccessKey: secret('secretAccessKey'),
    ...(o.sessionToken === undefined ? {} : { sessionToken: secret('sessionToken') }),
  };
}

/** Never the value: messages are logged. */
function invalidSecret(what: string, wanted: string): never {
  throw new OpenLoraError('ERR_INVALID_OPTION', `${what}: wanted ${wanted}`, { option: what });
}
