import { expect, test } from 'vitest';
import { withoutPossessives } from '../../src/formats/tokenizer-regex.js';

const matches = (pattern: string, text: string): string[] =>
  Array.from(text.matchAll(new RegExp(withoutPossessives(pattern), 'gu')), ([match]) => match);

test.each([
  ['a++a', 'aaa', []],
  ['a++b', 'aab ab', ['aab', 'ab']],
  ['a*+ab|b', 'aab', ['b']],
  ['a?+ab', 'ab aab', ['aab']],
  ['(?>a|ab)c', 'abc ac', ['ac']],
  ['(?>a+)(?>b|bc)+d', 'aabbd abcd', ['aabbd']],
  ['(ab)++c', 'ababc', ['ababc']],
  ['[a\\]+]++\\+?', 'a]++', ['a]++']],
  ['[^\\r\\n\\p{L}]?+\\p{L}++', ' ab,c1', [' ab', ',c']],
  ['\\s++$', 'a  b  ', ['  ']],
  ['a+?b|c??d', 'aab d', ['aab', 'd']],
  ['\\++b', '++b', ['++b']],
  ['(?:x|y++y)z', 'xz yyz', ['xz']],
  ['a{2}b', 'aab', ['aab']],
  ['\\x41++B', 'AAB', ['AAB']],
])('%s gives nothing back', (pattern, text, expected) => {
  expect(matches(pattern, text)).toEqual(expected);
});

test('a pattern without possessive parts stays as it is', () => {
  const llama3 = String.raw`(?i:'s|'t)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+(?!\S)|(?<=a)[[a-z]&&[^x]]+\s+`;
  expect(withoutPossessives(llama3)).toBe(llama3);
});
