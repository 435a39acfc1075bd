// What no test of results can see in a SIMD level's object. A weak symbol could make the linker keep an AVX-512 copy of a
// shared inline function for all. And gcc leaves out calls of a function that only prefetches, if it isn't always inlined.

import { execFileSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { root } from './source.js';

/** Names of nm's weak (W, V, w, v) and unique (u) symbols. */
function weakSymbols(nm: string): string[] {
  return nm.split('\n').flatMap((line) => /^[0-9a-f]*\s+[WwVvu] (.+)$/.exec(line)?.[1] ?? []);
}

/** Of objdump's functions whose names match: those without a prefetch. */
function withoutPrefetch(objdump: string, name: RegExp): string[] {
  const functions = objdump.split(/\n(?=[0-9a-f]+ <)/).filter((text) => name.test(text.split('\n', 1)[0]!));
  if (functions.length === 0) return [`no function is named ${name.source}`];
  return functions.flatMap((text) =>
    /\bprefetch\w*\b/.test(text.slice(text.indexOf('\n'))) ? [] : [text.split('\n', 1)[0]!],
  );
}

const build = join(root, 'build', 'release', 'CMakeFiles');
const objects = readdirSync(build, { recursive: true, encoding: 'utf8' }).filter((path) =>
  /^openlora_level_\w+\.dir\/.*\.o$/.test(path),
);

describe('objects of SIMD levels hold no weak symbols', () => {
  it('there are objects to look at (npm run build:native makes them)', () => {
    expect(objects.some((path) => path.includes('level_scalar'))).toBe(true);
  });

  it.each(objects)('%s', (object) => {
    expect(weakSymbols(execFileSync('nm', ['-C', join(build, object)], { encoding: 'utf8' }))).toEqual([]);
  });

  it('and the rule can fail', () => {
    const nm =
      '0000000000000000 W std::max(int, int)\n                 U memcpy\n0000000000000000 V typeinfo for X\n0000 T main';
    expect(weakSymbols(nm)).toEqual(['std::max(int, int)', 'typeinfo for X']);
  });
});

describe('kernels that read from memory prefetch', () => {
  const levels = objects.filter((path) => /level_avx(2|512)\.cc/.test(path));

  it.skipIf(levels.length === 0).each(levels)('%s', (object) => {
    const options = { encoding: 'utf8', maxBuffer: 2 ** 28 } as const;
    const code = execFileSync('objdump', ['-d', '-C', '--no-show-raw-insn', join(build, object)], options);
    for (const name of [/::BlockTile</, /::DotBlockTile</, /::ShrinkRows</, /::ExpandRows</])
      expect(withoutPrefetch(code, name)).toEqual([]);
  });

  it('and the rule can fail', () => {
    const code = '\n0000 <void X::BlockTile<8>(int)>:\n  0: mov\n\n0010 <Y>:\n  10: prefetcht0 (%rax)';
    expect(withoutPrefetch(code, /BlockTile/)).toEqual(['0000 <void X::BlockTile<8>(int)>:']);
    expect(withoutPrefetch(code, /Z/)).toEqual(['no function is named Z']);
    expect(withoutPrefetch(code, /Y/)).toEqual([]);
  });
});
