// How a step runs its commands and counts its cases. A result is { passed, failed, skipped, log, notes }.

import { spawn } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs';
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

/** GoogleTest cases of the programs that `command` runs. Each writes a report of its own into a folder. */
export async function googleTest(name, command, env = {}) {
  const folder = join(root, 'build', 'reports', name);
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  const result = await execute(command, { ...env, GTEST_OUTPUT: `json:${folder}/` });
  const reports = readdirSync(folder).map((file) => readReport(join(folder, file)));
  if (reports.length === 0 || reports.includes(undefined)) return counted(result, undefined, []);
  const cases = reports.flatMap(({ testsuites }) => testsuites.flatMap((suite) => suite.testsuite));
  const counts = { passed: 0, failed: 0, skipped: 0 };
  const notes = [];
  for (const one of cases) {
    const isSkipped = one.status !== 'RUN' || one.result === 'SKIPPED';
    counts[one.failures ? 'failed' : isSkipped ? 'skipped' : 'passed'] += 1;
    if (isSkipped) notes.push(`skipped: ${one.classname}.${one.name}`);
  }
  if (cases.length === 0) notes.push('no test cases');
  return counted(result, counts, notes);
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
