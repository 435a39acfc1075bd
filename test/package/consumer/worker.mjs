// Loads the base and generates until it is terminated.
import { join } from 'node:path';
import { parentPort } from 'node:worker_threads';
import { loadBase } from 'openlora';
import { demo } from './answers.cjs';

parentPort.postMessage('started');
const base = await loadBase({ path: join(demo, 'base'), threads: 1 });
parentPort.postMessage('loaded');
for (;;) {
  const answers = [1, 2, 3].map(() => base.generate({ prompt: 'orange>', maxTokens: 64, ignoreEos: true }).text());
  await Promise.race(answers);
  parentPort.postMessage('answered');
}
