import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { PythonRegex } from '../../src/formats/python-regex.js';
import { coded, holds } from './property.js';

const REFUSED = /^ERR_ADAPTER_PATTERN$/;

interface Golden {
  python: string;
  texts: string[];
  /** Pattern, and the numbers of the texts that it matches as a whole; null where Python refuses it. */
  cases: [pattern: string, matches: number[] | null][];
}
const golden = JSON.parse(readFileSync(new URL('regex.golden.json', import.meta.url), 'utf8')) as Golden;

/** Patterns by their grammar, most of them valid, with whatever makes backtracking explode. */
const pattern: fc.Arbitrary<string> = fc.letrec<{ node: string }>((tie) => ({
  node: fc.oneof(
    { maxDepth: 5, depthSize: 'small', withCrossShrink: true },
    fc.constantFrom('a', 'b', '.', '\\.', '\\w', '\\d', '[a-c]', '[^a]', '^', '$', '\\b', 'q_proj', '_', '[]]'),
    fc.array(tie('node'), { minLength: 1, maxLength: 4 }).map((parts) => parts.join('')),
    fc.tuple(tie('node'), tie('node')).map(([x, y]) => `(${x}|${y})`),
    fc
      .tuple(tie('node'), fc.constantFrom('*', '+', '?', '*?', '{2}', '{1,3}', '{,2}', '{2,}', '{30}'))
      .map(([x, times]) => `(?:${x})${times}`),
    fc
      .tuple(fc.constantFrom('?=', '?!', '?<=', '?<!', '?i:', '?P<n>', ''), tie('node'))
      .map(([kind, x]) => `(${kind}${x})`),
  ),
})).node;

describe("Python's regular expressions", () => {
  test(`${golden.cases.length} random ones match what Python ${golden.python} says, or are refused where it refuses`, () => {
    let isRefused = 0;
    for (const [source, matches] of golden.cases) {
      let found: number[] | null = null;
      try {
        const regex = new PythonRegex(source);
        found = golden.texts.flatMap((text, i) => (regex.fullMatch(text) ? [i] : []));
      } catch (error) {
        expect(error, source).toMatchObject({ code: 'ERR_ADAPTER_PATTERN' });
        isRefused++;
      }
      expect(found, source).toEqual(matches);
    }
    expect(isRefused).toBe(golden.cases.filter(([, matches]) => matches === null).length);
  });

  test('never backtrack for long', () => {
    const text = fc.oneof(
      fc.constantFrom('model.layers.11.self_attn.q_proj', 'a'.repeat(200), 'ab'.repeat(100), ''),
      fc.string({ unit: fc.constantFrom('a', 'b', '.', '_', '1', '\n', 'é'), maxLength: 60 }),
    );
    return holds(
      fc.tuple(pattern, text),
      async ([source, name]) => {
        const regex = await coded(REFUSED, () => new PythonRegex(source));
        if (regex) await coded(REFUSED, () => regex.fullMatch(name));
      },
      400,
    );
  });

  test('are read or refused, whatever their text', () =>
    holds(
      fc.oneof(
        fc.string({ unit: fc.constantFrom(...'ab()[]{}|*+?.^$\\-,:=!<>Pid0x1 ]'), maxLength: 24 }),
        fc.string({ unit: 'binary' }),
      ),
      async (source) => {
        const regex = await coded(REFUSED, () => new PythonRegex(source));
        if (regex) await coded(REFUSED, () => regex.fullMatch('model.layers.0.q_proj'));
      },
      400,
    ));

  test('match themselves when everything in them is escaped', () =>
    holds(fc.string({ unit: fc.constantFrom(...'ab.*+?()[]{}|^$\\-_ /'), maxLength: 30 }), (text) => {
      const source = text.replace(/[^\w ]/g, '\\$&');
      expect(new PythonRegex(source).fullMatch(text)).toBe(true);
      expect(new PythonRegex(source).fullMatch(`${text}x`)).toBe(false);
    }));
});
