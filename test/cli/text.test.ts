import { describe, expect, it } from 'vitest';
import {
  cut,
  formatBytes,
  formatMs,
  formatShort,
  nearest,
  oneLine,
  pad,
  printable,
  table,
  widthOf,
  wrap,
} from '../../src/cli/text.js';

describe('numbers', () => {
  it.each([
    [0, '0 B'],
    [1023, '1023 B'],
    [1024, '1.00 KiB'],
    [1_700_000, '1.62 MiB'],
    [10.24 * 2 ** 30, '10.2 GiB'],
    [1023.9 * 1024, '1.00 MiB'],
  ])('%d bytes are %s', (bytes, text) => expect(formatBytes(bytes)).toBe(text));

  it.each([
    [0.3, '0.3 ms'],
    [12.4, '12 ms'],
    [999.6, '1.0 s'],
    [61_000, '1 min 01 s'],
  ])('%d ms are %s', (ms, text) => expect(formatMs(ms)).toBe(text));

  it('shortens counts of parameters', () =>
    expect([853_000, 494e6, 7.24e9, 12].map(formatShort)).toEqual(['853 K', '494 M', '7.24 B', '12']));
});

describe('columns', () => {
  it('counts what a terminal shows', () => {
    expect(widthOf('\u001b[31mred\u001b[39m')).toBe(3);
    expect(widthOf('日本')).toBe(4);
    expect(widthOf('e\u0301')).toBe(1);
  });

  it('cuts and fills by that width', () => {
    expect(cut('abcdef', 4)).toBe('abc…');
    expect(cut('日本語', 5)).toBe('日本…');
    expect(cut('abc', 3)).toBe('abc');
    expect(pad('日', 4, 'right')).toBe('  日');
  });

  it('wraps at spaces, and inside words that are longer than a line', () => {
    expect(wrap('the quick brown fox', 9)).toEqual(['the quick', 'brown fox']);
    expect(wrap('abcdefghij xy', 4)).toEqual(['abcd', 'efgh', 'ij', 'xy']);
    expect(wrap('a\n\nb', 10)).toEqual(['a', '', 'b']);
    for (const line of wrap('日本語日本語', 5)) expect(widthOf(line)).toBeLessThanOrEqual(5);
  });

  it('aligns a table', () => {
    const columns = [{ title: 'name' }, { title: 'n', align: 'right' as const }];
    expect(
      table(columns, [
        ['a', '10'],
        ['bcdef', '2'],
      ]),
    ).toEqual(['name    n', 'a      10', 'bcdef   2']);
  });
});

describe('what a model writes', () => {
  it('can move no cursor', () => {
    expect(oneLine('a\u001b[2Jb\nc\u0007')).toBe('ab↵c·');
    expect(printable('a\u001b[2Jb\n\tc')).toBe('a�[2Jb\n\tc');
  });
});

describe('the nearest word', () => {
  const commands = ['demo', 'generate', 'chat', 'inspect', 'doctor', 'pull'];
  it.each([
    ['generte', 'generate'],
    ['gen', 'generate'],
    ['dmeo', 'demo'],
    ['inspct', 'inspect'],
    ['zzz', undefined],
  ])('to %s is %s', (word, wanted) => expect(nearest(word, commands)).toBe(wanted));
});
