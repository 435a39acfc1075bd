// Bytes that were given in memory or as a stream, written to files: the engine reads an adapter again after each eviction.

import { isUint8Array } from 'node:util/types';
import { open, rm, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { OpenLoraError } from '../errors.js';
import { Pacer } from '../formats/pacer.js';
import { onAbort } from './signals.js';
import { makeSpoolFolder, type SpoolFolder } from './spool-folder.js';
import { show } from './validate.js';

/** Copied and written at once, 10 µs of the JS thread; each registration that runs holds one. */
const BLOCK_BYTES = 64 << 10;
/** In a row; a stream that gives no bytes may do so for ever. */
const EMPTY_CHUNKS_MAX = 1024;

export type ByteSource = Uint8Array | AsyncIterable<Uint8Array>;

/** A file of its own for each adapter; it is nobody else's, and nobody else changes it. */
export interface SpooledFile {
  /** From 1 on. */
  readonly number: number;
  readonly path: string;
}

/** The files of one base. */
export class Spool {
  #folder: Promise<SpoolFolder> | undefined;
  #files = 0;
  readonly #writing = new Set<Promise<unknown>>();

  /**
   * Writes all of `source` to a new file; when that fails, none is left. One chunk of a stream is asked for at a time, and
   * not needed any more when the next one is. Rejects with ERR_ADAPTER_SIZE for more than `bytesMax`, ERR_ADAPTER_STREAM for
   * a stream that fails, ERR_IO for a disk that does, and with ERR_ABORTED or the signal's reason; a stream is told to let go
   * then.
   */
  async write(source: ByteSource, bytesMax: number, signal: AbortSignal): Promise<SpooledFile> {
    const writing = this.#write(source, bytesMax, signal);
    this.#writing.add(writing);
    try {
      return await writing;
    } finally {
      this.#writing.delete(writing);
    }
  }

  async #write(source: ByteSource, bytesMax: number, signal: AbortSignal): Promise<SpooledFile> {
    const number = ++this.#files;
    const length = isUint8Array(source) ? source.length : 0;
    let path = '';
    let file: FileHandle | undefined;
    let isUnread = !isUint8Array(source);
    try {
      path = pathOf(await this.#openFolder(), number);
      signal.throwIfAborted();
      file = await open(path, 'wx', 0o600);
      const writer = new BlockWriter(file, bytesMax, new Pacer(signal));
      signal.throwIfAborted();
      isUnread = false;
      await (isUint8Array(source) ? writer.add(source, length) : addStream(source, writer, signal));
      await writer.flush();
      await file.close();
      return { number, path };
    } catch (error) {
      if (isUnread) void endStream(source as AsyncIterable<Uint8Array>);
      await file?.close().catch(() => undefined);
      await this.remove(number);
      throw isSystemError(error) ? ioError(path, error) : error;
    }
  }

  /** May be called again; never rejects. What can't be removed goes with the folder. */
  async remove(number: number): Promise<void> {
    const folder = await this.#folder?.catch(() => undefined);
    if (folder) await rm(pathOf(folder, number), { force: true }).catch(() => undefined);
  }

  /** Made for the first file; a failure is not kept. */
  #openFolder(): Promise<SpoolFolder> {
    this.#folder ??= makeSpoolFolder().catch((error: unknown) => {
      this.#folder = undefined;
      throw error;
    });
    return this.#folder;
  }

  /** Removes all files, also those that are being written: abort their signals first. */
  async dispose(): Promise<void> {
    await Promise.allSettled(this.#writing);
    const folder = await this.#folder?.catch(() => undefined);
    await folder?.remove();
  }
}

function pathOf({ path }: SpoolFolder, number: number): string {
  return join(path, `${number}.safetensors`);
}

/** Copies before it writes: whoever gave the bytes may take them back at any time, and the memory with them. */
class BlockWriter {
  readonly #block = Buffer.allocUnsafeSlow(BLOCK_BYTES);
  #used = 0;
  #total = 0;

  constructor(
    private readonly file: FileHandle,
    private readonly bytesMax: number,
    private readonly pacer: Pacer,
  ) {}

  /** Of `length` bytes; a chunk whose memory was taken away has fewer. */
  async add(chunk: Uint8Array, length: number): Promise<void> {
    this.#total += length;
    if (this.#total > this.bytesMax) {
      const message = `source.tensors: got ${this.#total} bytes or more, wanted at most ${this.bytesMax}, the largest adapter of this base`;
      throw new OpenLoraError('ERR_ADAPTER_SIZE', message, { bytesMax: this.bytesMax });
    }
    for (let at = 0; at < length;) {
      if (chunk.length !== length) throw streamError(`${length} bytes became ${chunk.length} while they were read`);
      const end = Math.min(length, at + BLOCK_BYTES - this.#used);
      this.#block.set(chunk.subarray(at, end), this.#used);
      this.#used += end - at;
      at = end;
      if (this.#used === BLOCK_BYTES) await this.flush();
    }
    if (this.pacer.isDue) await this.pacer.rest();
  }

  async flush(): Promise<void> {
    for (let done = 0; done < this.#used;) {
      done += (await this.file.write(this.#block, done, this.#used - done)).bytesWritten;
    }
    this.#used = 0;
    this.pacer.checkAborted();
  }
}

async function addStream(stream: AsyncIterable<Uint8Array>, writer: BlockWriter, signal: AbortSignal): Promise<void> {
  let iterator: AsyncIterator<unknown>;
  try {
    iterator = stream[Symbol.asyncIterator]();
  } catch (cause) {
    throw streamError('the stream failed', cause);
  }
  let isDone = false;
  try {
    for (let empty = 0; empty <= EMPTY_CHUNKS_MAX;) {
      signal.throwIfAborted();
      const next = await nextOf(iterator, signal);
      if (next.done) {
        isDone = true;
        return;
      }
      const { value } = next;
      if (!isUint8Array(value)) throw streamError(`the stream gave ${show(value)}, wanted a Uint8Array`);
      empty = value.length === 0 ? empty + 1 : 0;
      await writer.add(value, value.length);
    }
    throw streamError(`the stream gave ${EMPTY_CHUNKS_MAX + 1} empty chunks in a row`);
  } finally {
    // Tells it to let go; one that hangs in `next` would hang here, too, so nobody waits.
    if (!isDone) void endStream(stream, iterator);
  }
}

/** A stream may be silent for ever: an abort is heard meanwhile. */
function nextOf(iterator: AsyncIterator<unknown>, signal: AbortSignal): Promise<IteratorResult<unknown>> {
  return new Promise((resolve, reject) => {
    const letGo = onAbort(signal, () => reject(signal.reason as Error));
    (async () => iterator.next())()
      .then(
        (next) => (typeof next === 'object' && next !== null ? resolve(next) : reject(streamError('no iterator'))),
        (cause: unknown) => reject(OpenLoraError.is(cause) ? cause : streamError('the stream failed', cause)),
      )
      .finally(letGo);
  });
}

/**
 * Tells a stream to let go; never rejects. `return` does so where reading has begun; before, the iterator of one of Node's or of
 * the web's holds nothing yet that it could end.
 */
export async function endStream(stream: AsyncIterable<unknown>, iterator?: AsyncIterator<unknown>): Promise<void> {
  const { destroy, cancel } = stream as { destroy?: unknown; cancel?: unknown };
  try {
    if (typeof destroy === 'function') destroy.call(stream);
    else if (iterator === undefined && typeof cancel === 'function') await cancel.call(stream);
    else await (iterator ?? stream[Symbol.asyncIterator]()).return?.();
  } catch {
    // The first error is the one that is told.
  }
}

function streamError(what: string, cause?: unknown): OpenLoraError {
  const why = cause instanceof Error ? `: ${cause.message}` : '';
  return new OpenLoraError('ERR_ADAPTER_STREAM', `source.tensors: ${what}${why}`, {}, cause);
}

function isSystemError(error: unknown): error is NodeJS.ErrnoException {
  return !OpenLoraError.is(error) && error instanceof Error && 'syscall' in error;
}

function ioError(path: string, cause: NodeJS.ErrnoException): OpenLoraError {
  const what = path === '' ? 'no folder for temporary files' : `${path} can't be written`;
  return new OpenLoraError('ERR_IO', `${what}: ${cause.message}`, path === '' ? {} : { path }, cause);
}
