/**
 * Waits for `promise` with the process kept alive. The addon does that while it loads, generates and closes; a process that
 * waits for nothing but the end of an adapter would exit in the midst of it.
 */
export async function keepAlive<T>(promise: Promise<T>): Promise<T> {
  const timer = setInterval(() => undefined, 2 ** 30);
  try {
    return await promise;
  } finally {
    clearInterval(timer);
  }
}
