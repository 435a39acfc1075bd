// What decode and prefill have in common: weights on disk, a base in memory, and an end to both.

import { UsageError } from '../errors.js';
import type { Io } from '../io.js';
import { benchDecode, decodeRoom } from './decode.js';
import type { Measured, OnLine } from './machine.js';
import { withModelFolder } from './model-folder.js';
import { measureSecondStart, ModelSession, type Room } from './model-session.js';
import { benchPrefill, prefillRoom } from './prefill.js';
import type { Line } from './report.js';
import { BATCH_ROWS, kvDtypeOf, type ModelSettings } from './settings.js';
import { weightsOf } from './shapes.js';

export async function benchModel(settings: ModelSettings, io: Io, onLine: OnLine): Promise<Measured> {
  const isDecode = settings.bench === 'decode';
  const room = isDecode ? decodeRoom(settings) : prefillRoom(settings);
  checkContext(settings, room);
  return withModelFolder(settings, io, async (folder) => {
    const session = await ModelSession.open(folder, settings, room, io);
    let lines: Line[];
    try {
      lines = await (isDecode ? benchDecode : benchPrefill)(session, io, onLine);
    } finally {
      await session.base.dispose();
    }
    lines.push(...session.loading, ...(await measureSecondStart(folder, settings, io)));
    const begun = { ...session.begun, ...(settings.simd === 'auto' ? {} : { simd: settings.simd }) };
    return { begun, sizes: sizesOf(settings, folder.adapterBytes), lines };
  });
}

function checkContext({ bench, shape, prompts }: ModelSettings, room: Room): void {
  if (room.context <= shape.context) return;
  const option = bench === 'decode' ? '--context' : '--prompt';
  const needed = `with what is generated beside it ${room.context} positions`;
  throw new UsageError(`${option} ${Math.max(...prompts)} takes ${needed}, ${shape.name} is made for ${shape.context}`);
}

function sizesOf(settings: ModelSettings, adapterBytes: number): Record<string, string | number> {
  const { shape, device, dtype, kvDtype, compute, adapterDtype, adapters, rank } = settings;
  const { bench, batches, prompts, repeats } = settings;
  const { layers, head } = weightsOf(shape, rank);
  return {
    model: shape.name,
    ...(device === 'cpu' ? {} : { device }),
    dtype,
    ...(kvDtype !== kvDtypeOf(dtype) ? { KV: kvDtype } : {}),
    ...(compute === 'bf16' ? { compute } : {}),
    weights: layers + head * (shape.isTied ? 1 : 2),
    hidden: shape.hidden,
    layers: shape.layers,
    heads: `${shape.heads}/${shape.kvHeads}`,
    intermediate: shape.intermediate,
    vocabulary: shape.vocab,
    ...(bench === 'decode' ? { batch: batches.join(','), context: prompts.join(',') } : { prompt: prompts.join(',') }),
    'rows of a step': BATCH_ROWS,
    adapters,
    ...(adapters > 0 ? { rank, 'adapter bytes in all': adapters * adapterBytes } : {}),
    ...(adapters > 0 && adapterDtype === 'int8' ? { 'adapters held in': adapterDtype } : {}),
    repeats,
  };
}
