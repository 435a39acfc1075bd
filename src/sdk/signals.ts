// Abort signals that many requests share, and that may live for as long as the process.

const callbacksOf = new WeakMap<AbortSignal, Set<() => void>>();

/**
 * Calls `callback` when `signal` aborts, at once if it has. The returned function lets go. However many wait, the signal
 * has one listener: Node warns of more than ten.
 */
export function onAbort(signal: AbortSignal, callback: () => void): () => void {
  if (signal.aborted) {
    callback();
    return () => undefined;
  }
  const callbacks = callbacksOf.get(signal) ?? listenTo(signal);
  // A function of its own for each call: the same callback may wait twice.
  const entry = () => callback();
  callbacks.add(entry);
  return () => callbacks.delete(entry);
}

/** The listener stays: a signal is let go of by its own maker. */
function listenTo(signal: AbortSignal): Set<() => void> {
  const callbacks = new Set<() => void>();
  callbacksOf.set(signal, callbacks);
  const onEvent = () => {
    const waiting = [...callbacks];
    callbacks.clear();
    for (const callback of waiting) callback();
  };
  signal.addEventListener('abort', onEvent, { once: true });
  return callbacks;
}

/** A signal that follows all of them; `unlink` lets go of them, which AbortSignal.any does not. */
export function linkSignals(...sources: (AbortSignal | undefined)[]): { signal: AbortSignal; unlink: () => void } {
  const controller = new AbortController();
  const letGo = sources
    .filter((source) => source !== undefined)
    .map((source) => onAbort(source, () => controller.abort(source.reason)));
  return { signal: controller.signal, unlink: () => letGo.forEach((release) => release()) };
}

/** Rejects with the signal's reason when it aborts; `stop` ends the wait, and the promise stays as it is. */
export function whenAborted(signal: AbortSignal): { promise: Promise<never>; stop: () => void } {
  let stop!: () => void;
  const promise = new Promise<never>((_, reject) => {
    stop = onAbort(signal, () => reject(signal.reason as Error));
  });
  promise.catch(() => undefined);
  return { promise, stop };
}
