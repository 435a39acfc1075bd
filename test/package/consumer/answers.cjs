'use strict';
// What both module formats answer: the base alone, then each adapter of the demo, greedy.

const { readdirSync } = require('node:fs');
const { join } = require('node:path');

const demo = join(__dirname, 'node_modules', 'openlora', 'demo');

exports.demo = demo;
exports.adapterNames = () =>
  readdirSync(join(demo, 'adapters'), { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .map((entry) => entry.name)
    .sort();

exports.answers = async ({ loadBase }) => {
  const base = await loadBase({ path: join(demo, 'base'), threads: 1 });
  const ask = (adapter) =>
    base.generate({ prompt: 'orange>', maxTokens: 12, temperature: 0, ...(adapter && { adapter }) }).text();
  const names = exports.adapterNames();
  for (const name of names) await base.registerAdapter(name, join(demo, 'adapters', name));
  const result = { base: await ask(), adapters: await Promise.all(names.map(ask)) };
  await base.dispose();
  return result;
};
