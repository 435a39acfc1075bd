// The whole matrix on the real addon in a worker thread; bundled by state-matrix.test.ts.

import { parentPort, workerData } from 'node:worker_threads';
import { REAL_STATES } from '../state-matrix.js';
import { runState, type Cell, type MatrixFiles } from './state-matrix.js';

const cells: Cell[] = [];
for (const state of REAL_STATES) cells.push(...(await runState(state, workerData as MatrixFiles)));
parentPort!.postMessage(cells);
