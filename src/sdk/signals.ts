// Abort signals with an end: AbortSignal.any keeps its result for as long as its longest-lived source lives.

/** A signal that follows both; `unlink` lets go of them. */
export function linkSignals(a: AbortSignal, b: AbortSignal | undefined): { signal: AbortSignal; unlink: () => void } {
  const controller = new AbortController();
  const sources = b === undefined ? [a] : [a, b];
  const onAbort = () => controller.abort(sources.find((source) => source.aborted)?.reason);
  for (const source of sources) source.addEventListener('abort', onAbort, { once: true });
  if (sources.some((source) => source.aborted)) onAbort();
  const unlink = () => {
    for (const source of sources) source.removeEventListener('abort', onAbort);
  };
  return { signal: controller.signal, unlink };
}

/** Rejects with the signal's reason when it aborts; `stop` ends the wait, and the promise stays as it is. */
export function whenAborted(signal: AbortSignal): { promise: Promise<never>; stop: () => void } {
  let onAbort!: () => void;
  const promise = new Promise<never>((_, reject) => {
    onAbort = () => reject(signal.reason as Error);
    if (signal.aborted) onAbort();
    else signal.addEventListener('abort', onAbort, { once: true });
  });
  promise.catch(() => undefined);
  return { promise, stop: () => signal.removeEventListener('abort', onAbort) };
}
