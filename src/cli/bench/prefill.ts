// `openlora bench prefill`: tokens a second of a prompt, one at a time, up to its first token.

import type { Io } from '../io.js';
import type { OnLine } from './machine.js';
import { attentionWork, productWork, type ModelSession, type Room } from './model-session.js';
import { summary, type Line } from './report.js';
import type { ModelSettings } from './settings.js';

export const prefillRoom = ({ prompts }: ModelSettings): Room => ({ sequences: 1, context: Math.max(...prompts) + 1 });

export async function benchPrefill(session: ModelSession, io: Io, onLine: OnLine): Promise<Line[]> {
  const { prompts, repeats } = session.settings;
  const ids = session.adapterIds;
  const kinds = ids.length > 0 ? (['base', 'adapter'] as const) : (['base'] as const);
  await runOnce(session, prompts[0]!, undefined, io);
  session.notePeakMemory();
  const lines: Line[] = [];
  for (const prompt of prompts) {
    const firstLook = session.looks;
    const runs: Record<(typeof kinds)[number], Run[]> = { base: [], adapter: [] };
    for (let i = 0; i < repeats; i++) {
      for (const kind of i % 2 === 0 ? kinds : [...kinds].reverse()) {
        await session.look();
        runs[kind].push(await runOnce(session, prompt, kind === 'base' ? undefined : ids[i % ids.length], io));
      }
    }
    const base = line(session, `prompt ${prompt}, base`, prompt, runs.base, firstLook);
    const found = [base];
    if (runs.adapter.length > 0) {
      const mixed = line(session, `prompt ${prompt}, 1 adapter`, prompt, runs.adapter, firstLook);
      found.push({ ...mixed, retention: mixed.median / base.median });
    }
    lines.push(...found);
    found.forEach(onLine);
  }
  return lines;
}

interface Run {
  tokensPerSecond: number;
  bytes: number;
  hasAdapter: boolean;
}

async function runOnce(session: ModelSession, prompt: number, adapter: string | undefined, io: Io): Promise<Run> {
  const { base } = session;
  const before = base.stats();
  const tokens = session.prompt(prompt);
  const request = { tokens, maxTokens: 1, ignoreEos: true, temperature: 0, signal: io.signal };
  const { timing } = await base.generate(adapter === undefined ? request : { ...request, adapter }).result;
  const after = base.stats();
  return {
    tokensPerSecond: (prompt / (timing.ttftMs - timing.queuedMs)) * 1000,
    bytes: after.weightBytesRead - before.weightBytesRead + after.loraBytesRead - before.loraBytesRead,
    hasAdapter: adapter !== undefined,
  };
}

function line(session: ModelSession, name: string, prompt: number, runs: readonly Run[], firstLook: number): Line {
  const { settings } = session;
  const speed = summary(runs.map(({ tokensPerSecond }) => tokensPerSecond));
  const bytes = runs.reduce((sum, run) => sum + run.bytes, 0) / runs.length;
  const adapterRows = runs[0]!.hasAdapter ? prompt : 0;
  const attention = attentionWork(settings, (prompt * (prompt + 1)) / 2);
  const operations = productWork(settings, prompt, 1, adapterRows) + attention.operations;
  return {
    name,
    ...{ unit: 'tokens/s', better: 'higher', ...speed },
    limits: session.limitsOf(firstLook, (prompt / speed.median) * 1000, bytes, operations),
  };
}
