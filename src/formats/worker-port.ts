// The thread's side: takes requests from its owner, answers each, hears which nobody waits for.

import { parentPort } from 'node:worker_threads';
import { toWire, type Failures, type FromWorker, type Requests, type ToWorker } from './worker-protocol.js';

/** A reply's value, and which of its buffers move to the owner in place of being copied. */
export interface Answer<T> {
  value: T;
  transfer: readonly ArrayBufferLike[];
}

/** Answers a request of each kind; `signal` is aborted when nobody waits for it any more. */
export type Answers<R extends Requests> = {
  [K in keyof R]: (request: R[K]['request'], signal: AbortSignal) => Promise<Answer<R[K]['reply']>>;
};

/**
 * Answers requests in their order, up to `atOnce` at a time (they share the thread: more than one is for those that wait for
 * files). Errors without a code get that of `failures`. Nothing happens on a main thread.
 */
export function serve<R extends Requests>(answers: Answers<R>, failures: Failures, atOnce: number): void {
  const port = parentPort;
  if (!port) return;
  const waiting: { id: number; kind: string; request: unknown; controller: AbortController }[] = [];
  const unanswered = new Map<number, AbortController>();
  let running = 0;

  const answerNext = async (): Promise<void> => {
    const next = waiting.shift();
    if (!next) return;
    running++;
    const { id, kind, request, controller } = next;
    let reply: FromWorker;
    let transfer: readonly ArrayBufferLike[] = [];
    try {
      controller.signal.throwIfAborted();
      const answer = await answers[kind]!(request, controller.signal);
      reply = { id, value: answer.value };
      transfer = answer.transfer;
    } catch (error) {
      reply = { id, error: toWire(error, failures) };
    }
    unanswered.delete(id);
    running--;
    port.postMessage(reply, transfer as ArrayBuffer[]);
    void answerNext();
  };

  port.on('message', (message: ToWorker) => {
    if (!('kind' in message)) return unanswered.get(message.id)?.abort();
    const controller = new AbortController();
    unanswered.set(message.id, controller);
    waiting.push({ ...message, controller });
    if (running < atOnce) void answerNext();
  });
}
