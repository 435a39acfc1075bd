// How long the JS thread is held at a time, in a process that does nothing but ours. The unit is a turn: what runs from
// where the event loop calls JavaScript until it goes on: a callback, the promise continuations after it, and what Node
// does around them for it (the copy of a worker's message, for one).

import { AsyncResource, createHook } from 'node:async_hooks';
import { openSync, readSync } from 'node:fs';
import { performance, PerformanceObserver } from 'node:perf_hooks';
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises';

/** Above this it's worth asking the kernel what of it was ours, in milliseconds. */
const SHORT_MS = 0.4;

/** Linux's tick at 250 Hz: how far behind `ran` may be, in milliseconds. */
const TICK_MS = 4;

export interface Turn {
  phase: string;
  /** What called, and the longest of the calls in it that `call` timed. */
  name: string;
  began: number;
  /** When it was called; what is before was the loop's own work. */
  called: number;
  end: number;
  /** Without the wait for a processor. */
  ms: number;
  ran: number;
}

interface ThreadTimes {
  ran: number;
  waited: number;
}

/**
 * Milliseconds that this thread ran and that it waited for a processor since it began, where Linux says so: a busy
 * machine's time, not ours.
 */
const threadTimes: () => ThreadTimes = (() => {
  try {
    const file = openSync('/proc/thread-self/schedstat', 'r');
    const bytes = Buffer.alloc(128);
    return () => {
      const [ran, waited] = bytes.toString('latin1', 0, readSync(file, bytes, 0, 128, 0)).split(' ');
      return { ran: Number(ran) / 1e6, waited: Number(waited) / 1e6 };
    };
  } catch {
    return () => ({ ran: 0, waited: 0 });
  }
})();

/** Of the calling thread, which has to be the process's main thread. */
export class Meter {
  phase = 'start';
  readonly #turns: Turn[] = [];
  readonly #collections: { startTime: number; duration: number }[] = [];
  readonly #collectionsSeen = new PerformanceObserver((list) => void this.#collections.push(...list.getEntries()));
  /** Types of what calls from the event loop; promises and ticks go on in the turn that they are in. */
  readonly #callers = new Map<number, string>();
  readonly #firstId = new AsyncResource('meter').asyncId();
  readonly #hook = createHook({
    init: (id, type) => {
      if (type !== 'PROMISE' && type !== 'TickObject') this.#callers.set(id, type);
    },
    before: (id) => this.#before(id),
    after: () => this.#after(),
  });
  #depth = 0;
  /** Of the loop's wait for events, at the beginning of the turn. */
  #idle = 0;
  /** When the turn began, and when it was last asked. */
  #times: ThreadTimes = { ran: 0, waited: 0 };
  #timesNow: ThreadTimes = this.#times;
  #longestCall = 0;

  constructor() {
    this.#collectionsSeen.observe({ entryTypes: ['gc'] });
    this.#hook.enable();
  }

  /** Turns of every kind, so that what measures is compiled before it measures. */
  async warmUp(): Promise<void> {
    for (const ms of [0, 1, 0, 1]) {
      await nextTurn();
      this.call('warm up', () => {
        const end = performance.now() + ms;
        while (performance.now() < end);
      });
    }
    await nextTurn();
  }

  /** Names the turn after the longest of these calls in it. */
  call<T>(name: string, action: () => T): T {
    const began = performance.now();
    try {
      return action();
    } finally {
      const took = performance.now() - began;
      const turn = this.#turns.at(-1);
      if (turn !== undefined && took > this.#longestCall) {
        this.#longestCall = took;
        turn.name = `${turn.name.split(',')[0]}, ${name}`;
      }
    }
  }

  async finish(): Promise<Turn[]> {
    await sleep(20);
    this.#hook.disable();
    this.#collections.push(...this.#collectionsSeen.takeRecords());
    this.#collectionsSeen.disconnect();
    for (const turn of this.#turns) this.#withoutCollections(turn);
    return this.#turns;
  }

  #before(id: number): void {
    if (this.#depth++ > 0) return;
    const type = this.#callers.get(id) ?? (id < this.#firstId ? 'earlier' : undefined);
    if (type !== undefined) this.#begin(type);
  }

  /** Where the loop's own work since the turn before was more than nothing, it counts as this turn's. */
  #begin(name: string): void {
    const now = performance.now();
    const idle = performance.nodeTiming.idleTime;
    const times = threadTimes();
    const before = now - (this.#turns.at(-1)?.end ?? now) - (idle - this.#idle);
    // What waited in the loop's wait for events counts as well, so this is a lower bound.
    const ours = Math.max(0, before > SHORT_MS ? before - (times.waited - this.#timesNow.waited) : before);
    this.#turns.push({ phase: this.phase, name, began: now - ours, called: now, end: now, ms: ours, ran: 0 });
    this.#idle = idle;
    this.#times = { ran: ours > SHORT_MS ? this.#timesNow.ran : times.ran, waited: times.waited };
    this.#timesNow = times;
    this.#longestCall = 0;
  }

  #after(): void {
    const turn = this.#turns.at(-1);
    if (--this.#depth > 0 || turn === undefined) return;
    const now = performance.now();
    turn.ms += now - turn.end;
    turn.end = now;
    if (turn.end - turn.began < SHORT_MS) return;
    this.#timesNow = threadTimes();
    turn.ms = turn.end - turn.began - (this.#timesNow.waited - this.#times.waited);
    turn.ran = this.#timesNow.ran - this.#times.ran;
  }

  /**
   * A collection that V8 does between two turns, of its own accord, is none of ours. In one that a turn brings about, this
   * thread sleeps until V8's helper threads are done, which on a busy machine wait for a processor (up to 160 ms of sleep was
   * seen, for 3 ms of work). There the time that it ran counts, and a tick.
   */
  #withoutCollections(turn: Turn): void {
    for (const { startTime, duration } of this.#collections) {
      const between = Math.min(startTime + duration, turn.called) - Math.max(startTime, turn.began);
      if (between > 0) turn.ms = Math.max(0, turn.ms - between);
    }
    if (turn.ms < 1 || turn.ran === 0) return;
    const isCollecting = this.#collections.some(
      (gc) => gc.startTime < turn.end && gc.startTime + gc.duration > turn.called,
    );
    if (isCollecting) turn.ms = Math.min(turn.ms, turn.ran + TICK_MS);
  }
}
