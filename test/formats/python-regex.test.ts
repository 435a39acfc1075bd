import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { PythonRegex } from '../../src/formats/python-regex.js';

interface Golden {
  names: string[];
  /** `matches` is null where Python refuses the pattern. */
  cases: { pattern: string; texts?: string[]; matches: string[] | null }[];
  refused: string[];
}
const golden = JSON.parse(readFileSync(new URL('golden/regex.golden.json', import.meta.url), 'utf8')) as Golden;

describe("Python's regular expressions", () => {
  test.each(golden.cases)('$pattern matches what Python says', ({ pattern, texts, matches }) => {
    if (matches === null) {
      expect(() => new PythonRegex(pattern)).toThrow(expect.objectContaining({ code: 'ERR_ADAPTER_PATTERN' }));
      return;
    }
    const regex = new PythonRegex(pattern);
    expect((texts ?? golden.names).filter((text) => regex.fullMatch(text))).toEqual(matches);
  });

  test.each(golden.refused)('%s is refused', (pattern) => {
    expect(() => new PythonRegex(pattern)).toThrow(expect.objectContaining({ code: 'ERR_ADAPTER_PATTERN' }));
  });

  const name = 'model.layers.11.self_attn.q_proj';
  test.each(['(a|aa)+$', '(.*)*(.*)*(.*)*x', '((.*)*)*x', '(\\w+\\.?)+!', '(?=(.*)*(.*)*y)(.*)*x'])(
    '%s, which takes exponential time when backtracking, ends at once',
    (pattern) => {
      const began = performance.now();
      expect(new PythonRegex(pattern).fullMatch(name)).toBe(false);
      expect(performance.now() - began).toBeLessThan(50);
    },
  );

  test.each(['a{5000}', '(a{100}){100}', '((?:){1000}){1000}', '('.repeat(500)])(
    'the huge pattern %s is refused',
    (pattern) => {
      expect(() => new PythonRegex(pattern)).toThrow(expect.objectContaining({ code: 'ERR_ADAPTER_PATTERN' }));
    },
  );

  test('a match that takes too many steps is refused', () => {
    const costly = new PythonRegex('(?:(?=(?:.?){600}(?=(?:.?){900}!)x|.).)*w');
    expect(() => costly.fullMatch(name.repeat(8))).toThrow(expect.objectContaining({ code: 'ERR_ADAPTER_PATTERN' }));
  });
});
