// `openlora doctor`: what this machine offers, and which binary runs on it.

import { defineCommand } from './command.js';
import { EXIT_FAILURE, EXIT_OK } from './errors.js';
import { json, type Io } from './io.js';
import { diagnose, type Diagnosis } from './diagnosis.js';
import { formatBytes } from './text.js';

export const doctor = defineCommand({
  name: 'doctor',
  summary: 'say what this machine offers and which binary runs',
  usage: '[--json]',
  details: 'Exit code 1 if no binary can run here.',
  options: {},
  examples: ['openlora doctor', 'openlora doctor --json > doctor.json'],
  // eslint-disable-next-line @typescript-eslint/require-await
  async run({ options, io }) {
    const diagnosis = diagnose();
    if (options.json) json(io, diagnosis);
    else print(diagnosis, io);
    return diagnosis.native.chosen ? EXIT_OK : EXIT_FAILURE;
  },
});

function print(diagnosis: Diagnosis, io: Io): void {
  const { stdout } = io;
  const { style } = stdout;
  const { node, os, cpu, memory, gpu, native, demo } = diagnosis;
  const mark = (isGood: boolean) => (isGood ? style.green('✓') : style.red('✗'));
  const row = (sign: string, name: string, value: string) =>
    stdout.line(`${sign} ${style.bold(name.padEnd(10))}${value}`);
  row(mark(true), 'openlora', diagnosis.version);
  row(
    mark(node.isSupported),
    'node',
    `${node.version}, Node-API ${node.napi}${node.isSupported ? '' : `; wanted Node-API ${node.napiWanted}: Node 20.19 or later`}`,
  );
  row(mark(true), 'system', `${os.platform} ${os.release}, ${os.arch}, ${os.libc}`);
  const quota = cpu.quota === undefined ? '' : `, limited to ${cpu.quota}`;
  row(mark(true), 'cpu', `${cpu.model}, ${cpu.usable} processors usable${quota}`);
  if (cpu.features.length > 0) row(' ', '', style.dim(cpu.features.join(' ')));
  if (cpu.simdLevels.length > 0) row(' ', '', `SIMD: ${cpu.simdLevels.join(', ')}`);
  const limit = memory.limitBytes === undefined ? '' : `, this process may use ${formatBytes(memory.limitBytes)}`;
  row(
    mark(true),
    'memory',
    `${formatBytes(memory.totalBytes)}, ${formatBytes(memory.availableBytes)} available${limit}`,
  );
  if (gpu.devices.length === 0) row(style.dim('·'), 'gpu', gpu.note);
  gpu.devices.forEach((device, i) =>
    row(style.dim('·'), i === 0 ? 'gpu' : '', `${device.name}, ${device.memory}, driver ${device.driver}`),
  );
  if (gpu.devices.length > 0) row(' ', '', style.dim(gpu.note));
  row(
    mark(native.chosen !== undefined),
    'binary',
    native.chosen ? `${native.chosen.variant}: ${native.chosen.path}` : 'none can run here',
  );
  for (const { path, reason } of native.rejected) row(' ', '', style.dim(`not ${path}: ${reason}`));
  row(mark(demo.isPresent), 'demo', demo.isPresent ? demo.path : `not at ${demo.path}`);
  if (!native.chosen) stdout.line(`${style.dim('try:')} openlora build`);
}
