import { describe, expect, it } from 'vitest';
import { cppRules } from './cpp-rules.js';
import { repositorySources } from './source.js';
import { styleRules } from './style-rules.js';
import { tsRules } from './ts-rules.js';

const files = repositorySources();

describe.each([...cppRules, ...tsRules, ...styleRules])('$name', (rule) => {
  it('in this repository', () => {
    expect(rule.check(files)).toEqual([]);
  });

  it('and the rule can fail', () => {
    for (const fixture of rule.offending) expect(rule.check(fixture), fixture[0]?.path).not.toEqual([]);
    expect(rule.check(rule.fine)).toEqual([]);
  });
});

it('the rules see the repository', () => {
  for (const folder of ['cpp/', 'src/']) expect(files.some(({ path }) => path.startsWith(folder))).toBe(true);
});
