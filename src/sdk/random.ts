// Random numbers a few at a time: a call into the system's generator takes up to 30 microseconds, the first one more.

import { randomFillSync } from 'node:crypto';

const words = new Uint32Array(256);
let used = words.length;

function drawWord(): number {
  if (used === words.length) {
    randomFillSync(words);
    used = 0;
  }
  return words[used++]!;
}

/** An integer in [0, 2^53). */
export function drawSeed(): number {
  return (drawWord() >>> 11) * 2 ** 32 + drawWord();
}

/** 64 bits in hexadecimal. */
export function drawName(): string {
  return [drawWord(), drawWord()].map((word) => word.toString(16).padStart(8, '0')).join('');
}
