// Which lines of the CUDA kernels the tests execute on the simulated GPU: all of them, or the step fails.

import { join } from 'node:path';
import { cmakeCommands } from '../cmake.mjs';
import { filesUnder, root } from '../files.mjs';
import { commands, execute, googleTest } from './run.mjs';

const FOLDER = 'build/cuda-coverage';

/** Of a line that a template has several times, or several files include, one execution is enough: Map of `file:line` to count. */
function linesIn(logs) {
  const lines = new Map();
  for (const log of logs) {
    for (const { files } of log.split('\n').flatMap((line) => (line.startsWith('{') ? [JSON.parse(line)] : []))) {
      for (const { file, lines: counted } of files) {
        const path = /cuda\/(kernels|device)\/[^/]+$/.exec(file)?.[0];
        if (path === undefined) continue;
        for (const { line_number: number, count } of counted)
          lines.set(`${path}:${number}`, (lines.get(`${path}:${number}`) ?? 0) + count);
      }
    }
  }
  return lines;
}

export async function cudaCoverage() {
  const definitions = {
    OPENLORA_CUDA_COVERAGE: 'ON',
    OPENLORA_ADDON: 'OFF',
    OPENLORA_BENCH: 'OFF',
    OPENLORA_SIM: 'OFF',
  };
  const built = await commands(cmakeCommands(root, FOLDER, definitions, 'openlora_cuda_tests'));
  if (built.failed > 0) return built;
  const old = filesUnder(FOLDER, /\.gcda$/);
  if (old.length > 0) await execute(['rm', ...old]);
  const tested = await googleTest('cuda-coverage', FOLDER, {}, [], /openlora_cuda_tests$/);
  if (tested.failed > 0) return tested;
  const logs = [];
  for (const path of filesUnder(FOLDER, /\.gcda$/))
    logs.push((await execute(['gcov', '--json-format', '--stdout', join(root, path)])).log);
  const lines = linesIn(logs);
  const missed = [...lines].filter(([, count]) => count === 0).map(([line]) => line);
  const isWhole = lines.size > 0 && missed.length === 0;
  return {
    passed: isWhole ? 1 : 0,
    failed: isWhole ? 0 : 1,
    skipped: 0,
    log: `lines that no test executes:\n${missed.sort().join('\n')}\n`,
    notes: [`${lines.size - missed.length} of ${lines.size} lines`],
  };
}
