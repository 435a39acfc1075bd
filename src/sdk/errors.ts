import { OpenLoraError } from '../errors.js';

/** Whatever was thrown, as an OpenLoraError: an abort is ERR_ABORTED, other coded errors keep their code. */
export function toOpenLoraError(error: unknown, signal?: AbortSignal): OpenLoraError {
  if (OpenLoraError.is(error)) return error;
  if (signal?.aborted && (error === signal.reason || isAbort(error))) return abortedError('the call', signal);
  const message = error instanceof Error ? error.message : String(error);
  const code = ownCode(error) ?? 'ERR_INTERNAL';
  return new OpenLoraError(code, message, {}, error);
}

export function closedError(what: string): OpenLoraError {
  return new OpenLoraError('ERR_CLOSED', `${what}: the base is disposed`);
}

export function abortedError(what: string, signal: AbortSignal): OpenLoraError {
  return new OpenLoraError('ERR_ABORTED', `${what} was aborted by its signal`, {}, signal.reason);
}

export function notSupportedError(what: string, instead: string): OpenLoraError {
  return new OpenLoraError('ERR_NOT_SUPPORTED', `${what} is not supported yet; ${instead}`);
}

export function throwIfAborted(what: string, signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw abortedError(what, signal);
}

/** Runs a callback of the user's; what it throws ends here. */
export function callUser(callback: () => unknown): void {
  try {
    const returned = callback();
    // An async callback's rejection would crash the host.
    if (returned instanceof Promise) returned.catch(() => undefined);
  } catch {
    // The user's own affair.
  }
}

function isAbort(error: unknown): boolean {
  return error instanceof Error && error.name === 'AbortError';
}

/** Codes of errors that lower layers throw without this class (the addon's loader). */
function ownCode(error: unknown): string | undefined {
  const code = error instanceof Error ? (error as { code?: unknown }).code : undefined;
  return code === 'ERR_NATIVE_NOT_FOUND' ? code : undefined;
}
