// A base whose resolver the test answers, and the folder in which it keeps what it is given in memory.

import { expect } from 'vitest';
import type { AdapterResolver, ResolverLimits } from '../../src/index.js';
import type { FakeOptions } from './fake-native.js';
import { openFake, turns } from './fake-parts.js';
import { useSpool } from './spool-parts.js';

export type Answer = Awaited<ReturnType<AdapterResolver>>;

/** A question that the test answers. */
export interface Question {
  id: string;
  tenant: string | undefined;
  signal: AbortSignal;
  answer(value: unknown): void;
  fail(error: unknown): void;
}

export const inMemory = () => ({ config: { peft_type: 'LORA' }, tensors: new Uint8Array(100) });

/** Sets up the tests of a file: bases are disposed after each, and nothing may be left. */
export function useResolvers() {
  const { spooled, opened } = useSpool('resolver');

  /** Without a `resolver`, questions wait for the test. */
  async function open(o: { resolver?: AdapterResolver; limits?: ResolverLimits; fake?: FakeOptions } = {}) {
    const questions: Question[] = [];
    const wait: AdapterResolver = (id, { signal, tenant }) =>
      new Promise((resolve, reject) => {
        questions.push({ id, tenant, signal, answer: (value) => resolve(value as Answer), fail: reject });
      });
    let asked = 0;
    const adapterResolver: AdapterResolver = (...args) => {
      asked++;
      return (o.resolver ?? wait)(...args);
    };
    const fake = await openFake(o.fake, { adapterResolver, resolverLimits: o.limits ?? {} });
    opened(fake);
    const ask = (adapter: string, more: object = {}) =>
      fake.base.generate({ prompt: 'ab', maxTokens: 1, adapter, ...more });
    const asking = async (count: number) => {
      for (let i = 0; questions.length < count && i < 100; i++) await turns(1);
      expect(questions).toHaveLength(count);
      return questions;
    };
    return { ...fake, ask, asking, questions, asked: () => asked };
  }
  return { open, spooled, opened };
}
