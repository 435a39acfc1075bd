// Twelve workers one after another, terminated before, while and after they load, and while they generate.
import { once } from 'node:events';
import { setTimeout } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';

const moments = ['started', 'loaded', 'answered'];
let ended = 0;
for (let round = 0; round < 12; round += 1) {
  const worker = new Worker(new URL('./worker.mjs', import.meta.url));
  const moment = moments[round % moments.length];
  await new Promise((resolve, reject) => {
    worker.on('message', (message) => message === moment && resolve());
    worker.on('error', reject);
  });
  await setTimeout(round * 3);
  const exit = once(worker, 'exit');
  await worker.terminate();
  await exit;
  ended += 1;
}
console.log(`${ended} workers ended`);
