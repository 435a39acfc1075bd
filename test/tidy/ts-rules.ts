import { posix } from 'node:path';
import { isSrc, offendingLines, type Rule, source } from './source.js';

// What a folder of src/ may import besides itself. `errors.ts` has no folder: every layer throws coded errors.
const srcArrows: Record<string, readonly string[]> = {
  'errors.ts': [],
  native: [],
  formats: ['errors.ts', 'native/binding.ts'],
  // What `openlora pull` and `hubResolver` have in common.
  hub: ['errors.ts'],
  sdk: ['errors.ts', 'formats', 'native', 'hub'],
  'index.ts': ['errors.ts', 'sdk', 'formats', 'native'],
  // `doctor`, `build` and `--version` work where no addon loads.
  cli: ['index.ts', 'errors.ts', 'native', 'hub'],
  server: ['index.ts'],
};

const imported = (line: string): string | undefined =>
  /(?:\bfrom\s+|\bimport\s*\(?\s*)['"](\.[^'"]*)['"]/.exec(line)?.[1];

function importOffence(path: string, specifier: string): string | undefined {
  const target = posix.normalize(posix.join(posix.dirname(path), specifier)).replace(/\.js$/, '.ts');
  if (!target.startsWith('src/')) return target === 'package.json' ? undefined : `${specifier} is outside src/`;
  const from = path.split('/')[1] ?? '';
  const [, to = '', ...rest] = target.split('/');
  const allowed = [from, ...(srcArrows[from] ?? [])];
  return allowed.includes(to) || allowed.includes([to, ...rest].join('/'))
    ? undefined
    : `${from} may not import ${target}`;
}

const layers: Rule = {
  name: 'TypeScript imports follow the arrows: cli → index → sdk → formats, native',
  check: (files) =>
    files.filter(isSrc).flatMap((file) =>
      offendingLines(file, (line) => {
        const specifier = imported(line);
        return specifier === undefined ? undefined : importOffence(file.path, specifier);
      }),
    ),
  offending: [
    [source('src/cli/run.ts', "import { x } from '../sdk/base-model.js';")],
    [source('src/native/load.ts', "import { OpenLoraError } from '../errors.js';")],
    [source('src/formats/peft.ts', "import type { Base } from '../sdk/types.js';")],
    [source('src/sdk/base-model.ts', "const x = await import('../cli/run.js');")],
    [source('src/sdk/base-model.ts', "import x from '../../scripts/files.mjs';")],
  ],
  fine: [
    source('src/cli/run.ts', "import { loadBase } from '../index.js';", "import { text } from './text.js';"),
    source(
      'src/sdk/base-model.ts',
      "import { readPeft } from '../formats/index.js';",
      "import { join } from 'node:path';",
    ),
  ],
};

/** A pattern that only some files may hold. */
function onlyIn(name: string, pattern: RegExp, allowed: RegExp, example: string, here: string): Rule {
  return {
    name,
    check: (files) =>
      files
        .filter((file) => isSrc(file) && !allowed.test(file.path))
        .flatMap((file) =>
          offendingLines(file, (line) => {
            const isComment = /^\s*(\/\/|\*|\/\*)/.test(line);
            return !isComment && pattern.test(line) ? line.trim() : undefined;
          }),
        ),
    offending: [[source('src/sdk/base-model.ts', example)]],
    fine: [source(here, example), source('src/sdk/base-model.ts', `// ${example}`)],
  };
}

export const tsRules: readonly Rule[] = [
  layers,
  onlyIn(
    'only the CLI writes to the console',
    /\bconsole\s*\./,
    /^src\/(cli|server)\//,
    'console.log(1);',
    'src/cli/run.ts',
  ),
  onlyIn(
    'the environment is read by the CLI and by the choice of binary alone',
    /\bprocess\s*\.\s*env\b|\bprocess\s*\[/,
    /^src\/(cli\/|native\/load\.ts)/,
    'const debug = process.env.DEBUG;',
    'src/cli/style.ts',
  ),
  onlyIn(
    'only src/native loads a .node',
    /\.node['"`]|node-gyp-build|\bdlopen\b/,
    /^src\/native\//,
    "const addon = require('./openlora.node');",
    'src/native/load.ts',
  ),
];
