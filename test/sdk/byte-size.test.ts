import { describe, expect, test } from 'vitest';
import { parseByteSize, showBytes } from '../../src/sdk/byte-size.js';

describe('byte sizes', () => {
  test.each([
    [0, 0],
    [4096, 4096],
    ['4096', 4096],
    ['500MB', 500e6],
    ['8GiB', 8 * 2 ** 30],
    ['1.5 GB', 1.5e9],
    [' 2 kib ', 2048],
    ['1TiB', 2 ** 40],
  ])('%s is %d bytes', (given, bytes) => expect(parseByteSize('x', given)).toBe(bytes));

  test.each([
    ['8G'],
    ['GiB'],
    ['-1MB'],
    ['1e9'],
    ['1,5GB'],
    [''],
    ['1 GiB B'],
    [-1],
    [1.5],
    [NaN],
    [Infinity],
    [2 ** 53],
    ['9'.repeat(40)],
    [null],
    [{}],
  ])('%s is none', (given) =>
    expect(() => parseByteSize('x', given)).toThrow(/^x: got .*, wanted bytes, as an integer or as text/),
  );

  test('are shown in the unit that fits', () => {
    expect([0, 1023, 1024, 1.5 * 2 ** 30, 2 ** 60].map(showBytes)).toEqual([
      '0 B',
      '1023 B',
      '1 KiB',
      '1.5 GiB',
      '1048576 TiB',
    ]);
  });
});
