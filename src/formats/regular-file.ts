import { constants } from 'node:fs';
import { open, type FileHandle } from 'node:fs/promises';

/** Opens for reading. A FIFO, whose opening would wait for a writer in one of libuv's few threads, is refused like a folder. */
export async function openRegular(path: string): Promise<{ file: FileHandle; size: number }> {
  const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    const info = await file.stat();
    if (info.isDirectory()) throw Object.assign(new Error(`${path} is a folder`), { code: 'EISDIR' });
    if (!info.isFile()) throw Object.assign(new Error(`${path} is no regular file`), { code: 'EINVAL' });
    return { file, size: info.size };
  } catch (error) {
    await file.close();
    throw error;
  }
}
