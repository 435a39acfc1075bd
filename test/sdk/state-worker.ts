// The whole matrix in a worker thread; bundled by state-matrix.test.ts.

import { parentPort } from 'node:worker_threads';
import { runMatrix } from './state-matrix.js';

parentPort!.postMessage(await runMatrix());
