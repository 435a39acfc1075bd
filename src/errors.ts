const BRAND = Symbol.for('openlora.error');

/** Codes after which the same call may succeed later, unchanged. */
const RETRYABLE = new Set([
  'ERR_OVERLOADED',
  'ERR_OUT_OF_MEMORY',
  'ERR_THREADS',
  'ERR_DEADLINE',
  'ERR_ENGINE_STALLED',
  'ERR_ADAPTER_RESOLVER',
  'ERR_ADAPTER_RESOLVER_TIMEOUT',
  'ERR_STORE',
  'ERR_STORE_DIGEST',
  'ERR_HUB',
  'ERR_HUB_RATE',
  'ERR_HUB_UNREACHABLE',
  'ERR_HUB_DIGEST',
]);

/**
 * Every error that openlora throws or rejects with. `code` is stable and listed in docs/errors.md; the message says
 * what, what was got, and what was wanted.
 *
 * The package is loaded twice where both `import` and `require` are used, so recognise an error by
 * `OpenLoraError.is(error)`, not by `instanceof`.
 */
export class OpenLoraError extends Error {
  readonly code: string;
  /** Whether the same call may succeed later, unchanged. */
  readonly retryable: boolean;
  readonly details: Readonly<Record<string, unknown>>;

  constructor(code: string, message: string, details: Record<string, unknown> = {}, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = 'OpenLoraError';
    this.code = code;
    this.retryable = RETRYABLE.has(code);
    this.details = details;
    Object.defineProperty(this, BRAND, { value: true });
  }

  static is(error: unknown): error is OpenLoraError {
    return typeof error === 'object' && error !== null && BRAND in error;
  }
}
