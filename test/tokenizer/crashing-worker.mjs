// Stands in for the tokenizer's worker: answers `open`, throws at the text "crash", and echoes its thread's number.
import { parentPort, threadId } from 'node:worker_threads';

parentPort.on('message', ({ id, request }) => {
  if (request.text === 'crash') throw new Error('crashed as asked');
  if (request.text === 'hang') return;
  parentPort.postMessage({ id, value: Uint32Array.of(threadId) });
});
