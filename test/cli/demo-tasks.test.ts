import { describe, expect, it } from 'vitest';
import { chooseRequests, expectedRight, type DemoAdapter } from '../../src/cli/demo/tasks.js';

const words = Array.from({ length: 20 }, (_, i) => `word${i}>`);
const make = (name: string, prompts: string[], accuracy = 1): DemoAdapter => ({
  name,
  title: name,
  accuracy,
  examples: prompts.map((prompt) => ({ prompt, answer: `${name} of ${prompt}` })),
});
const shared = Array.from({ length: 8 }, (_, i) => make(`shared${i}`, words));
const tenants = Array.from({ length: 4 }, (_, i) =>
  make(
    `tenant${i}`,
    Array.from({ length: 30 }, (_, j) => `t${i}-${j}>`),
  ),
);
const family = [...shared, ...tenants];

describe('the requests of the demo', () => {
  it('ask several adapters the same, and each adapter something', () => {
    const requests = chooseRequests(family, 64, 0);
    expect(requests).toHaveLength(64);
    expect(new Set(requests.map(({ adapter }) => adapter)).size).toBe(12);
    const first = requests.filter(({ prompt }) => prompt === requests[0]!.prompt);
    expect(first.map(({ adapter }) => adapter)).toEqual(shared.map(({ name }) => name));
    for (const { adapter, prompt, wanted } of requests) expect(wanted).toBe(`${adapter} of ${prompt}`);
  });

  it('are mixed: adapters with prompts of their own come between the others', () => {
    const isTenant = chooseRequests(family, 64, 0).map(({ adapter }) => adapter.startsWith('tenant'));
    const changes = isTenant.filter((is, i) => i > 0 && is !== isTenant[i - 1]).length;
    expect(changes).toBeGreaterThanOrEqual(8);
  });

  it('are the same for the same seed, and others for another', () => {
    expect(chooseRequests(family, 64, 3)).toEqual(chooseRequests(family, 64, 3));
    expect(chooseRequests(family, 64, 3)).not.toEqual(chooseRequests(family, 64, 4));
  });

  it.each([1, 7, 64, 500])('are as many as asked for: %d', (count) => {
    expect(chooseRequests(family, count, 0)).toHaveLength(count);
    expect(chooseRequests(tenants, count, 0)).toHaveLength(count);
    expect(chooseRequests(shared, count, 0).length).toBeGreaterThan(0);
  });
});

describe('how many have to be right', () => {
  it('is all of them where every adapter is always right', () => {
    expect(expectedRight(chooseRequests(family, 64, 0), family)).toBe(64);
  });

  it('is three standard deviations less than the adapters reach', () => {
    const unsure = [make('a', words, 0.9)];
    const requests = words.map((prompt) => ({ adapter: 'a', prompt, wanted: '' }));
    expect(expectedRight(requests, unsure)).toBe(Math.floor(18 - 3 * Math.sqrt(20 * 0.9 * 0.1)));
  });
});
