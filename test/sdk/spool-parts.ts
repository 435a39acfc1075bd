// What tests share whose bases keep files of adapters that were given in memory.

import { mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeEach, expect } from 'vitest';
import type { Base } from '../../src/index.js';
import type { FakeEngine } from './fake-native.js';
import type { FakeReader } from './fake-parts.js';

export interface Opened {
  base: Base;
  engine: FakeEngine;
  reader?: FakeReader;
}

/**
 * Sets up the tests of a file: each has a temporary folder of its own; what it opened is disposed after it, and nothing may be
 * left then.
 */
export function useSpool(name: string) {
  const systemTmp = tmpdir();
  const root = mkdtempSync(join(systemTmp, `openlora-${name}-`));
  let tmp = '';
  let runs = 0;
  let opened: Opened[] = [];
  beforeEach(() => {
    tmp = join(root, String(++runs));
    mkdirSync(tmp);
    process.env.TMPDIR = tmp;
  });
  afterEach(async () => {
    for (const { base, engine, reader } of opened) {
      reader?.held.clear();
      await base.dispose();
      expect(engine.violations).toEqual([]);
    }
    opened = [];
    expect(readdirSync(tmp)).toEqual([]);
  });
  afterAll(() => {
    process.env.TMPDIR = systemTmp;
    rmSync(root, { recursive: true });
  });
  return {
    /** The folder of the test that runs. */
    folder: () => tmp,
    /** Names of what is spooled, of all bases. */
    spooled: () =>
      readdirSync(tmp).flatMap((folder) => readdirSync(join(tmp, folder)).filter((file) => file !== 'owner')),
    opened: (fake: Opened) => void opened.push(fake),
  };
}
