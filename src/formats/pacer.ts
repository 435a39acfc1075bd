import { setImmediate } from 'node:timers/promises';
import { OpenLoraError } from '../errors.js';

/** Longest stretch of our own work between two turns of the event loop, in milliseconds. */
const SLICE_MS = 0.4;

/**
 * Cuts long checks into slices, so that registering an adapter never holds up the JS thread, and notices an aborted
 * signal between them. Call `if (pacer.isDue) await pacer.rest()` in every loop over tensors or modules: reading the
 * clock takes 50 ns.
 */
export class Pacer {
  private sliceBegan = performance.now();

  constructor(private readonly signal?: AbortSignal) {
    this.checkAborted();
  }

  get isDue(): boolean {
    return performance.now() - this.sliceBegan > SLICE_MS;
  }

  async rest(): Promise<void> {
    await setImmediate();
    this.checkAborted();
    this.sliceBegan = performance.now();
  }

  /** Throws ERR_ABORTED if the signal is aborted; call it after every read, too. */
  checkAborted(): void {
    if (this.signal?.aborted) throw new OpenLoraError('ERR_ABORTED', 'aborted by its signal', {}, this.signal.reason);
    this.sliceBegan = performance.now();
  }
}
