// JSON files of the Hugging Face world: reading one as an object, reading one key of a huge one, and RFC 8785 text.

import { readFile, type FileHandle } from 'node:fs/promises';
import { OpenLoraError } from '../errors.js';
import { Pacer } from './pacer.js';
import { openRegular } from './regular-file.js';

export type JsonObject = Readonly<Record<string, unknown>>;

/** Configs are a few kB, an index a few hundred; a larger one would hold the JS thread while it is parsed. */
export const CONFIG_BYTES_MAX = 1 << 20;

/** Of one JSON text: parsing takes a microsecond for each. Three times what a base of 200 layers has in its index. */
const CONFIG_VALUES_MAX = 8_192;
/** So short a text is parsed in time whatever is in it. */
const SHORT_TEXT = 64 << 10;

/** Whether `value` is a JSON object, not a list. */
export function isJsonObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Whether an error of `fs` says that there is no such file or folder. */
export function isMissing(error: unknown): boolean {
  const code = (error as NodeJS.ErrnoException | null)?.code;
  return code === 'ENOENT' || code === 'ENOTDIR';
}

/** The object in a JSON file; undefined when there is no such file. Throws `code` for anything but an object. */
export async function readJsonObject(path: string, code: string): Promise<JsonObject | undefined> {
  const text = await readTextFile(path, code);
  if (text === undefined) return undefined;
  if (text.length > SHORT_TEXT) await checkValues(text, path, code);
  return parseJsonObject(text, path, code);
}

/** Throws `code` for more than CONFIG_VALUES_MAX values: each follows a comma or an opening bracket. */
async function checkValues(text: string, path: string, code: string): Promise<void> {
  const pacer = new Pacer();
  let values = 0;
  let isInString = false;
  for (let i = 0; i < text.length; i++) {
    if (i % 4096 === 0 && pacer.isDue) await pacer.rest();
    const unit = text.charCodeAt(i);
    if (unit === 0x22) isInString = !isInString;
    else if (isInString && unit === 0x5c) i++;
    else if (!isInString && (unit === 0x2c || unit === 0x5b || unit === 0x7b)) values++;
  }
  if (values > CONFIG_VALUES_MAX) {
    throw new OpenLoraError(code, `${path} has ${values} values, more than ${CONFIG_VALUES_MAX}`, { path });
  }
  await pacer.rest();
}

/** The text of a file of at most CONFIG_BYTES_MAX; undefined when there is no such file. */
export async function readTextFile(path: string, code: string): Promise<string | undefined> {
  let bytes: Buffer;
  try {
    const { file, size } = await openRegular(path);
    try {
      if (size > CONFIG_BYTES_MAX) {
        throw new OpenLoraError(code, `${path} has ${size} bytes, more than ${CONFIG_BYTES_MAX}`, { path });
      }
      bytes = await readFile(file);
    } finally {
      await file.close();
    }
  } catch (error) {
    if (isMissing(error)) return undefined;
    if (OpenLoraError.is(error)) throw error;
    throw new OpenLoraError(code, `${path} can't be read: ${(error as Error).message}`, { path }, error);
  }
  return bytes.toString('utf8').replace(/^\uFEFF/, '');
}

function parseJsonObject(text: string, path: string, code: string): JsonObject {
  let value: unknown;
  try {
    value = JSON.parse(text) as unknown;
  } catch (cause) {
    throw new OpenLoraError(code, `${path} is not JSON: ${(cause as Error).message}`, { path }, cause);
  }
  if (!isJsonObject(value)) throw new OpenLoraError(code, `${path} is not a JSON object`, { path });
  return value;
}

/** RFC 8785 (JSON Canonicalization Scheme): sorted keys, no spaces, ECMAScript's number format. */
export function canonicalJson(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(',')}]`;
  if (!isJsonObject(value)) return JSON.stringify(value) ?? 'null';
  const keys = Object.keys(value).filter((key) => value[key] !== undefined);
  keys.sort(); // by UTF-16 code units, as RFC 8785 section 3.2.3 wants
  return `{${keys.map((key) => `${JSON.stringify(key)}:${canonicalJson(value[key])}`).join(',')}}`;
}

/** Each read is a turn of the event loop. */
const READ_BYTES = 16 << 10;
/** Of what is parsed at once. */
const VALUE_BYTES_MAX = SHORT_TEXT;
/** Of one list; Gemma 3 has 6,415 added tokens. */
const ITEMS_MAX = 100_000;

/**
 * The values of some top-level keys of a JSON file of any size, without parsing the rest: a tokenizer.json of 10 MB
 * holds the JS thread for 100 ms. A list is parsed item by item, as it is read. Stops reading when all keys are found;
 * undefined when there is no such file. Throws `code` when the file ends in the middle, or a wanted value or an item of a
 * wanted list is over 64 KiB or not JSON, or a list has more than 100,000 items.
 */
export async function readTopLevelValues(
  path: string,
  keys: readonly string[],
  code: string,
  pacer: Pacer,
): Promise<Map<string, unknown> | undefined> {
  const found = new Map<string, unknown>();
  const scan = new TopLevelScan(keys, path, code);
  let file: FileHandle;
  try {
    ({ file } = await openRegular(path));
  } catch (error) {
    if (isMissing(error)) return undefined;
    throw new OpenLoraError(code, `${path} can't be read: ${(error as Error).message}`, { path }, error);
  }
  try {
    const chunk = Buffer.alloc(READ_BYTES);
    while (!scan.isDone) {
      const { bytesRead } = await file.read(chunk, 0, READ_BYTES);
      pacer.checkAborted();
      if (bytesRead === 0) throw new OpenLoraError(code, `${path} ends in the middle of its JSON`, { path });
      scan.feed(chunk.subarray(0, bytesRead), found);
    }
  } finally {
    await file.close();
  }
  return found;
}

/** A byte automaton: strings and depth only, enough to find where a top-level value begins and ends. */
class TopLevelScan {
  isDone = false;
  private depth = 0;
  private isInString = false;
  private isEscaped = false;
  private isKeyNext = false;
  private key: number[] | undefined;
  private wanted: string | undefined;
  private parts: Buffer[] = [];
  private partBytes = 0;
  /** Of a wanted list, as far as they are read. */
  private items: unknown[] | undefined;

  constructor(
    private readonly keys: readonly string[],
    private readonly path: string,
    private readonly code: string,
  ) {}

  feed(chunk: Buffer, found: Map<string, unknown>): void {
    let valueBegin = this.wanted === undefined ? -1 : 0;
    for (let i = 0; i < chunk.length && !this.isDone; i++) {
      const byte = chunk[i]!;
      if (this.isInString) {
        this.key?.push(byte);
        if (this.isEscaped) this.isEscaped = false;
        else if (byte === 0x5c) this.isEscaped = true;
        else if (byte === 0x22) this.isInString = false;
        continue;
      }
      if (byte === 0x22) {
        this.isInString = true;
        if (this.depth === 1 && this.isKeyNext) this.key = [byte];
      } else if (byte === 0x3a && this.depth === 1 && this.key) {
        const name = this.parse(Buffer.from(this.key).toString('utf8'));
        this.key = undefined;
        this.isKeyNext = false;
        if (typeof name === 'string' && this.keys.includes(name)) {
          this.wanted = name;
          valueBegin = i + 1;
        }
      } else if (byte === 0x7b || byte === 0x5b) {
        if (++this.depth === 1) this.isKeyNext = byte === 0x7b;
        if (this.depth === 1 && byte === 0x5b) throw this.fail('is not a JSON object');
        if (this.depth === 2 && byte === 0x5b && this.wanted !== undefined) {
          this.take(chunk.subarray(valueBegin, i));
          if (this.taken() !== '' || this.items) throw this.fail('is not JSON');
          this.items = [];
          valueBegin = i + 1;
        }
      } else if (byte === 0x7d || byte === 0x5d || byte === 0x2c) {
        if (this.depth === 2 && this.items && byte !== 0x7d) {
          this.take(chunk.subarray(valueBegin, i));
          this.endItem(this.items, byte === 0x5d);
          valueBegin = i + 1;
        } else if (this.depth === 1 && this.wanted !== undefined) {
          this.take(chunk.subarray(valueBegin, i));
          const text = this.taken();
          if (this.items && text !== '') throw this.fail('is not JSON');
          found.set(this.wanted, this.items ?? this.parse(text));
          this.wanted = undefined;
          this.items = undefined;
          if (this.keys.every((key) => found.has(key))) this.isDone = true;
        }
        if (byte === 0x2c) this.isKeyNext = this.depth === 1;
        else if (--this.depth === 0) this.isDone = true;
      } else if (this.depth === 0 && byte > 0x20 && byte < 0x80) {
        throw this.fail('is not a JSON object');
      }
    }
    if (this.wanted !== undefined) this.take(chunk.subarray(valueBegin));
  }

  private take(part: Buffer): void {
    this.partBytes += part.length;
    if (this.partBytes > VALUE_BYTES_MAX) throw this.fail(`: ${this.wanted} has more than ${VALUE_BYTES_MAX} bytes`);
    this.parts.push(Buffer.from(part));
  }

  /** The text that was taken, once. */
  private taken(): string {
    const text = Buffer.concat(this.parts).toString('utf8').trim();
    this.parts = [];
    this.partBytes = 0;
    return text;
  }

  private endItem(items: unknown[], isLast: boolean): void {
    const text = this.taken();
    if (isLast && text === '' && items.length === 0) return;
    if (items.length === ITEMS_MAX) throw this.fail(`: ${this.wanted} has more than ${ITEMS_MAX} items`);
    items.push(this.parse(text));
  }

  private parse(text: string): unknown {
    try {
      return JSON.parse(text) as unknown;
    } catch (cause) {
      throw new OpenLoraError(this.code, `${this.path} is not JSON`, { path: this.path }, cause);
    }
  }

  private fail(what: string): OpenLoraError {
    return new OpenLoraError(this.code, `${this.path} ${what}`, { path: this.path });
  }
}
