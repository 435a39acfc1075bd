// `openlora build`: the native addon from the sources in the package.

import { buildFromSource } from '../native/build.js';
import { defineCommand } from './command.js';
import { CliError } from './errors.js';
import { json } from './io.js';

export const build = defineCommand({
  name: 'build',
  summary: 'build the native addon from the sources in the package',
  usage: '[options]',
  details: 'For machines that no binary was shipped for. Needs CMake 3.22, a C++20 compiler, and make or ninja.',
  options: {
    jobs: { kind: 'integer', value: 'N', min: 1, max: 1024, summary: 'compilers at once (default: the processors)' },
  },
  examples: ['openlora build', 'openlora doctor'],
  // eslint-disable-next-line @typescript-eslint/require-await
  async run({ options, io }) {
    let path: string;
    try {
      path = buildFromSource(options.jobs === undefined ? {} : { jobs: options.jobs });
    } catch (error) {
      throw new CliError('ERR_BUILD', error instanceof Error ? error.message : String(error), 'openlora doctor');
    }
    if (options.json) json(io, { path });
    else io.stdout.line(`${io.stdout.style.green('✓')} ${path}`);
    return 0;
  },
});
