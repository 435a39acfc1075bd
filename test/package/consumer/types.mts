import { type AdapterInfo, type Base, loadBase, OpenLoraError, type Result } from 'openlora';

export async function answer(signal: AbortSignal): Promise<string> {
  const base: Base = await loadBase({ path: 'base', signal });
  const adapter: AdapterInfo = await base.registerAdapter('polite', 'adapters/polite');
  const generation = base.generate({ prompt: 'hello', adapter: adapter.id, maxTokens: 8, signal });
  try {
    for await (const chunk of generation) console.log(chunk.text);
  } catch (error) {
    if (OpenLoraError.is(error)) console.log(error.code, error.retryable);
  }
  const result: Result = await generation.result;
  await base.dispose();
  return result.text;
}

// @ts-expect-error a base needs a path
await loadBase({});
