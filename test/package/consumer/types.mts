import {
  type AdapterInfo,
  type AdapterResolver,
  type Base,
  folderResolver,
  hubResolver,
  loadBase,
  OpenLoraError,
  type Result,
  s3Resolver,
} from 'openlora';

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

export const resolvers: AdapterResolver[] = [
  folderResolver((tenant) => tenant ?? null),
  s3Resolver({
    endpoint: 'http://localhost:9000',
    region: 'us-east-1',
    bucket: 'models',
    credentials: (tenant) => ({ accessKeyId: tenant ?? '', secretAccessKey: '' }),
  }),
  hubResolver({ allow: ['acme/*'], token: () => null }),
  async (id, { tenant, signal }) => (signal.aborted ? null : `${tenant ?? 'shared'}/${id}`),
];

// @ts-expect-error a base needs a path
await loadBase({});
