// Messages between a worker thread and its owner. Each request has exactly one reply.

import { OpenLoraError } from '../errors.js';

/** Of a worker: by kind, what a request says and what its reply does. The first request of a worker is `open`. */
export type Requests = { open: Exchange } & Record<string, Exchange>;

interface Exchange {
  request: unknown;
  reply: unknown;
}

/** A request, or the word that nobody waits for the one of that number any more. */
export type ToWorker = { id: number; kind: string; request: unknown } | { id: number };
export type FromWorker = { id: number; value: unknown } | { id: number; error: WireError };

export interface WireError {
  code: string;
  message: string;
  details: Record<string, unknown>;
  cause?: Error;
}

/** What an error without a code becomes. */
export interface Failures {
  code: string;
  /** Who failed: `the tokenizer`. */
  whose: string;
}

export function toWire(error: unknown, { code, whose }: Failures): WireError {
  if (!OpenLoraError.is(error)) {
    const message = error instanceof Error ? error.message : String(error);
    return { code, message: `${whose} failed: ${message}`, details: {} };
  }
  const { cause } = error;
  const wire = { code: error.code, message: error.message, details: { ...error.details } };
  return cause instanceof Error ? { ...wire, cause } : wire;
}

export function fromWire({ code, message, details, cause }: WireError): OpenLoraError {
  return new OpenLoraError(code, message, details, cause);
}
