// What one rendering may take. An adapter's template is someone else's code, and runs on the caller's thread: without a
// bound a line of it fills the heap, which ends the process (a list doubled forty times), or runs for hours (two such lists
// compared).

import { TemplateError, type Value } from './chat-template-value.js';

/** Evaluated nodes, loop rounds, items that are compared or printed, and what `spendFor` adds: one to three seconds. */
const STEPS_MAX = 1_000_000;
/** Characters that are passed over, or items that are copied, in the time of a step. */
const CHARACTERS_A_STEP = 64;
const ITEMS_A_STEP = 8;

// Rendering is synchronous and never nested, and what spends stands deep below the renderer. Outside of one there is no bound.
let left = Infinity;

/** Runs one rendering. */
export function withBudget<T>(render: () => T): T {
  left = STEPS_MAX;
  try {
    return render();
  } finally {
    left = Infinity;
  }
}

export function spend(steps: number): void {
  left -= steps;
  if (left < 0) throw new TemplateError(`rendering takes more than ${STEPS_MAX} steps`);
}

/** For a pass over a value, or for its making. */
export function spendFor(value: Value): void {
  if (typeof value === 'string') spend(Math.floor(value.length / CHARACTERS_A_STEP));
  else if (Array.isArray(value)) spend(Math.floor(value.length / ITEMS_A_STEP));
  else if (value instanceof Map) spend(Math.floor(value.size / ITEMS_A_STEP));
}
