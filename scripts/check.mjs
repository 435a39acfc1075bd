// npm run check: every step in order, the log of a failed one, and one last line `N passed, N failed, N skipped`: test cases
// where a step has cases, else one for the step. Options: --long, --only <step> (repeatable), --list.

import { parseArgs } from 'node:util';
import { fastSteps, longSteps } from './check-steps/steps.mjs';

const { values } = parseArgs({
  options: { long: { type: 'boolean' }, only: { type: 'string', multiple: true }, list: { type: 'boolean' } },
});
const known = [...fastSteps, ...longSteps];
if (values.list) {
  for (const { name, about } of known) console.log(`${name.padEnd(14)} ${about}`);
  process.exit(0);
}
const unknown = (values.only ?? []).filter((name) => !known.some((step) => step.name === name));
if (unknown.length > 0) {
  console.error(`no step is called ${unknown.join(', ')}; --list shows them`);
  process.exit(2);
}
const steps = values.only ? known.filter(({ name }) => values.only.includes(name)) : values.long ? known : fastSteps;

const LOG_LINES_MAX = 400;

/** The beginning holds the first error, the end says how it ended. */
function shortened(log) {
  const lines = log.split('\n');
  if (lines.length <= LOG_LINES_MAX) return log;
  const half = LOG_LINES_MAX / 2;
  return [...lines.slice(0, half), `[${lines.length - LOG_LINES_MAX} lines left out]`, ...lines.slice(-half)].join(
    '\n',
  );
}

const total = { passed: 0, failed: 0, skipped: 0 };
const failedSteps = new Set();
for (const step of steps) {
  const blocker = step.needs?.find((name) => failedSteps.has(name));
  const began = performance.now();
  const result = blocker
    ? { passed: 0, failed: 1, skipped: 0, log: `not run: ${blocker} failed\n`, notes: [] }
    : await step.run();
  for (const key of Object.keys(total)) total[key] += result[key];
  if (result.failed > 0) {
    failedSteps.add(step.name);
    process.stdout.write(`\n──── ${step.name}: log\n${shortened(result.log)}──── end of ${step.name}\n\n`);
  }
  const seconds = ((performance.now() - began) / 1000).toFixed(1);
  const counts = Object.entries(total)
    .filter(([key]) => result[key] > 0)
    .map(([key]) => `${result[key]} ${key}`)
    .join(', ');
  console.log(`${result.failed > 0 ? 'FAIL' : 'ok  '} ${step.name.padEnd(14)} ${seconds.padStart(7)} s  ${counts}`);
  for (const note of result.notes) console.log(`       ${note}`);
}
console.log(`${total.passed} passed, ${total.failed} failed, ${total.skipped} skipped`);
process.exit(total.failed > 0 ? 1 : 0);
