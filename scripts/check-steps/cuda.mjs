// The addon's variants for GPUs, in the folder of the CPU's addon, whose library they share: every kernel file is compiled by both
// versions of NVRTC for every architecture, which fails on a warning and on a spill.

import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { cmakeCommands } from '../cmake.mjs';
import { toolkits } from '../cuda/fetch.mjs';
import { root } from '../files.mjs';
import { commands, merged, vitest } from './run.mjs';

const FOLDER = 'build/release';

/** Rows of the tables that compile_images left: [{ variant, kernel, architecture, registers, stack }]. */
function usagesOf(variant) {
  const folder = join(root, FOLDER, 'variants', variant, 'cuda_images');
  const tables = readdirSync(folder).filter((name) => name.endsWith('.table'));
  return tables.flatMap((name) =>
    [...readFileSync(join(folder, name), 'utf8').matchAll(/^(\S+) +(sm_\d+) +(\d+) +\d+ +(\d+) +\d+$/gm)].map(
      ([, kernel, architecture, registers, stack]) => ({
        variant,
        kernel,
        architecture,
        registers: Number(registers),
        stack: Number(stack),
      }),
    ),
  );
}

/** The most registers that a kernel needs anywhere, those that need most first; and each kernel with arrays in memory. */
function notesOf(usages) {
  const most = new Map();
  for (const usage of usages)
    if (usage.registers > (most.get(usage.kernel)?.registers ?? -1)) most.set(usage.kernel, usage);
  const images = new Set(usages.map(({ variant, architecture }) => `${variant} ${architecture}`));
  const onStack = [...new Set(usages.filter(({ stack }) => stack > 0).map(({ kernel }) => kernel))];
  const lines = [...most.values()]
    .sort((a, b) => b.registers - a.registers)
    .slice(0, 4)
    .map(
      ({ kernel, registers, architecture, variant }) =>
        `${kernel}: ${registers} registers (${variant} ${architecture})`,
    );
  return [
    `images: ${[...images].join(', ')}`,
    ...lines,
    ...(onStack.length > 0 ? [`with a stack frame: ${onStack.join(', ')}`] : []),
  ];
}

/** Both variants as one case, and those of test/cuda-addon on them. */
export async function cudaVariants() {
  let folders;
  try {
    folders = toolkits().map(({ folder }) => folder);
  } catch (error) {
    return { passed: 0, failed: 1, skipped: 0, log: `${error.message}\n`, notes: [] };
  }
  const definitions = { OPENLORA_WERROR: 'ON', OPENLORA_CUDA_TOOLKIT: folders.join(';') };
  const [configure, build] = cmakeCommands(root, FOLDER, definitions, 'openlora_addon_cuda12');
  const built = await commands([configure, [...build, 'openlora_addon_cuda13']]);
  if (built.failed > 0) return built;
  const tested = await vitest('cuda');
  const usages = ['cuda12', 'cuda13'].flatMap(usagesOf);
  return merged([{ ...built, notes: notesOf(usages) }, tested]);
}
