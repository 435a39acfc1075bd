// How a step runs its commands and counts its cases. A result is { passed, failed, skipped, log, notes }.

import { spawn } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { root } from '../files.mjs';

/** Runs one command in the repository; resolves to { isOk, log }. */
export function execute([command, ...args], env = {}) {
  return new Promise((resolve) => {
    let log = `$ ${[command, ...args].join(' ')}\n`;
    const child = spawn(command, args, { cwd: root, env: { ...process.env, NO_COLOR: '1', ...env } });
    const take = (data) => (log += data);
    child.stdout.on('data', take);
    child.stderr.on('data', take);
    child.on('error', (error) => resolve({ isOk: false, log: `${log}${error.message}\n` }));
    child.on('close', (code, signal) => {
      if (signal) log += `ended by ${signal}\n`;
      resolve({ isOk: code === 0, log });
    });
  });
}

/** Commands one after another until one fails: one check. */
export async function commands(list, env) {
  let log = '';
  for (const command of list) {
    const result = await execute(command, env);
    log += result.log;
    if (!result.isOk) return { passed: 0, failed: 1, skipped: 0, log, notes: [] };
  }
  return { passed: 1, failed: 0, skipped: 0, log, notes: [] };
}

/** A fresh path for a report under build/reports. */
function reportPath(name) {
  const folder = join(root, 'build', 'reports');
  mkdirSync(folder, { recursive: true });
  const path = join(folder, `${name}.json`);
  rmSync(path, { force: true });
  return path;
}

function readReport(path) {
  try {
    return JSON.parse(readFileSync(path, 'utf8'));
  } catch {
    return undefined;
  }
}

/** A command that ends with no report, or badly with no failed case, is one failure more. */
function counted(result, counts, notes) {
  const isLost = !counts || (!result.isOk && counts.failed === 0);
  const { passed = 0, failed = 0, skipped = 0 } = counts ?? {};
  return { passed, failed: failed + (isLost ? 1 : 0), skipped, log: result.log, notes };
}

/** The tests that a build folder has registered: their commands, with the emulator of a cross build. */
async function registeredPrograms(folder) {
  const result = await execute(['ctest', '--test-dir', folder, '--show-only=json-v1']);
  try {
    const { tests } = JSON.parse(result.log.slice(result.log.indexOf('{')));
    return { log: result.log, programs: tests.map(({ name, command }) => command ?? [`${name}, which isn't built`]) };
  } catch {
    return { log: result.log, programs: [] };
  }
}

/** Runs `jobs` as many at a time as there are processors; resolves to their results, in order. */
export async function allOf(jobs) {
  const results = [];
  let next = 0;
  const worker = async () => {
    while (next < jobs.length) {
      const index = next++;
      results[index] = await jobs[index]();
    }
  };
  await Promise.all(Array.from({ length: availableParallelism() }, worker));
  return results;
}

/**
 * GoogleTest cases of the programs of a build folder, after `prefix`. Most cases use one processor: each program runs in
 * as many parts as there are. Every part writes a report of its own. `wanted`: of the programs' paths.
 */
export async function googleTest(name, folder, env = {}, prefix = [], wanted = /./) {
  const reports = join(root, 'build', 'reports', name);
  rmSync(reports, { recursive: true, force: true });
  mkdirSync(reports, { recursive: true });
  const registered = await registeredPrograms(folder);
  const { log } = registered;
  const programs = registered.programs.filter(([path]) => wanted.test(path));
  const parts = availableParallelism();
  const jobs = programs.flatMap((command, program) =>
    Array.from({ length: parts }, (_, part) => async () => {
      const report = join(reports, `${program}-${part}.json`);
      const shard = {
        GTEST_TOTAL_SHARDS: String(parts),
        GTEST_SHARD_INDEX: String(part),
        GTEST_OUTPUT: `json:${report}`,
      };
      const result = await execute([...prefix, ...command], { ...env, ...shard });
      const cases = readReport(report)?.testsuites.flatMap((suite) => suite.testsuite);
      return { ...result, cases };
    }),
  );
  const results = await allOf(jobs);
  const all = {
    isOk: results.every(({ isOk }) => isOk),
    log: results.length === 0 ? log : results.map((result) => (result.isOk ? '' : result.log)).join(''),
  };
  if (results.length === 0 || results.some(({ cases }) => !cases)) return counted(all, undefined, []);
  const cases = results.flatMap((result) => result.cases);
  const counts = { passed: 0, failed: 0, skipped: 0 };
  const notes = [];
  for (const one of cases) {
    const isSkipped = one.status !== 'RUN' || one.result === 'SKIPPED';
    counts[one.failures ? 'failed' : isSkipped ? 'skipped' : 'passed'] += 1;
    if (isSkipped) notes.push(`skipped: ${one.classname}.${one.name}`);
  }
  return cases.length === 0 ? counted(all, undefined, ['no test cases']) : counted(all, counts, notes);
}

/** Test cases of one vitest project. */
export async function vitest(project, env = {}, node = process.execPath) {
  const report = reportPath(`vitest-${project}`);
  const reporters = ['--reporter=default', '--reporter=json', `--outputFile.json=${report}`];
  const command = [node, 'node_modules/vitest/vitest.mjs', 'run', '--project', project, ...reporters];
  const result = await execute(command, env);
  const json = readReport(report);
  if (!json) return counted(result, undefined, []);
  const notes = json.testResults
    .flatMap((file) => file.assertionResults)
    .filter(({ status }) => status !== 'passed' && status !== 'failed')
    .map(({ fullName }) => `skipped: ${fullName}`);
  const skipped = json.numPendingTests + json.numTodoTests;
  return counted(result, { passed: json.numPassedTests, failed: json.numFailedTests, skipped }, notes);
}

/** Several results as one. */
export function merged(results) {
  const sum = (key) => results.reduce((total, result) => total + result[key], 0);
  return {
    passed: sum('passed'),
    failed: sum('failed'),
    skipped: sum('skipped'),
    log: results
      .filter(({ failed }) => failed > 0)
      .map(({ log }) => log)
      .join('\n'),
    notes: results.flatMap(({ notes }) => notes),
  };
}
