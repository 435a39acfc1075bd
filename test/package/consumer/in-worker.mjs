// What esm.mjs prints, from a worker thread.
import { once } from 'node:events';
import { isMainThread, parentPort, Worker } from 'node:worker_threads';
import * as openlora from 'openlora';
import { answers } from './answers.cjs';

if (isMainThread) {
  const [result] = await once(new Worker(new URL(import.meta.url)), 'message');
  console.log(JSON.stringify(result));
} else {
  parentPort.postMessage(await answers(openlora));
}
