// A weak symbol in a SIMD level's object could make the linker keep an AVX-512 copy of a shared inline function for all.

import { execFileSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { root } from './source.js';

/** Names of nm's weak (W, V, w, v) and unique (u) symbols. */
function weakSymbols(nm: string): string[] {
  return nm.split('\n').flatMap((line) => /^[0-9a-f]*\s+[WwVvu] (.+)$/.exec(line)?.[1] ?? []);
}

describe('objects of SIMD levels hold no weak symbols', () => {
  const build = join(root, 'build', 'release', 'CMakeFiles');
  const objects = readdirSync(build, { recursive: true, encoding: 'utf8' }).filter((path) =>
    /^openlora_level_\w+\.dir\/.*\.o$/.test(path),
  );

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
