// Stands in for the tokenizer's worker: answers `open`, throws at the text "crash", tells at "aborted" which requests were,
// and else echoes its thread's number.
import { parentPort, threadId } from 'node:worker_threads';

const aborted = [];
parentPort.on('message', ({ id, request }) => {
  if (request === undefined) return aborted.push(id);
  if (request.text === 'crash') throw new Error('crashed as asked');
  if (request.text === 'hang') return undefined;
  return parentPort.postMessage({ id, value: Uint32Array.from(request.text === 'aborted' ? aborted : [threadId]) });
});
