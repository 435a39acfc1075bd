import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { OpenLoraError } from '../../src/errors.js';

const root = fileURLToPath(new URL('../../', import.meta.url));
const page = readFileSync(join(root, 'docs/errors.md'), 'utf8');

interface Row {
  code: string;
  meaning: string;
  retryable: string;
  advice: string;
}

const rows: Row[] = [...page.matchAll(/^\| `(ERR_\w+)` \| (.+?) \| (yes|no) \| (.+?) \|$/gm)].map(
  ([, code, meaning, retryable, advice]) => ({
    code: code!,
    meaning: meaning!,
    retryable: retryable!,
    advice: advice!,
  }),
);

/** Every code that stands in the sources, comments included; names that go on (`ERR_ADAPTER_…`) are no codes. */
function codesOf(folder: string): Set<string> {
  const codes = new Set<string>();
  for (const entry of readdirSync(join(root, folder), { recursive: true, withFileTypes: true })) {
    if (!entry.isFile() || !/\.(ts|cc|h|cu|cuh)$/.test(entry.name)) continue;
    const text = readFileSync(join(entry.parentPath, entry.name), 'utf8');
    for (const [code] of text.matchAll(/\bERR_[A-Z0-9]+(?:_[A-Z0-9]+)*(?!\w)/g)) codes.add(code);
  }
  return codes;
}

test('docs/errors.md lists every code of the sources, and no other', () => {
  const used = new Set([...codesOf('src'), ...codesOf('cpp'), ...codesOf('cuda')]);
  const listed = new Set(rows.map(({ code }) => code));
  expect([...used].filter((code) => !listed.has(code)).sort()).toEqual([]);
  expect([...listed].filter((code) => !used.has(code)).sort()).toEqual([]);
});

test('docs/errors.md lists each code once, and says of each whether it is retryable as the class does', () => {
  expect(new Set(rows.map(({ code }) => code)).size).toBe(rows.length);
  expect(rows.length).toBe([...page.matchAll(/^\| `ERR_/gm)].length);
  for (const { code, retryable } of rows) {
    expect([code, retryable]).toEqual([code, new OpenLoraError(code, '').retryable ? 'yes' : 'no']);
  }
});
