import { existsSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import {
  loadNative,
  loadNativeInTurns,
  NATIVE_VARIANTS,
  NativeLoadError,
  type NativeVariant,
} from '../../src/native/load.js';
import { packageRoot, packageVersion } from '../../src/native/package-root.js';

const shipped = (variant: NativeVariant): string =>
  join('variants', variant, 'prebuilds', `${process.platform}-${process.arch}`, 'openlora.glibc.node');

let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'openlora-load-'));
  writeFileSync(join(root, 'package.json'), JSON.stringify({ name: 'openlora', version: '1.2.3' }));
  vi.stubEnv('OPENLORA_BACKEND', '');
});
afterEach(() => {
  vi.unstubAllEnvs();
  rmSync(root, { recursive: true, force: true });
});

function put(path: string): string {
  mkdirSync(dirname(join(root, path)), { recursive: true });
  writeFileSync(join(root, path), 'not an addon');
  return join(root, path);
}

function failure(run: () => unknown): NativeLoadError {
  try {
    run();
  } catch (error) {
    if (error instanceof NativeLoadError) return error;
    throw error;
  }
  throw new Error('an addon was loaded');
}

async function nextMicrotasks(): Promise<string> {
  for (let i = 0; i < 100; i++) await Promise.resolve();
  return 'not in this turn';
}

describe('the choice of binary', () => {
  it('names every variant that has no file, best first', () => {
    const error = failure(() => loadNative({ root }));
    expect(error.code).toBe('ERR_NATIVE_NOT_FOUND');
    expect(error.rejected.map(({ path }) => path)).toEqual(NATIVE_VARIANTS.map((name) => join(root, 'variants', name)));
    expect(error.rejected[0]?.reason).toBe(`no binary for ${process.platform}-${process.arch}`);
    expect(error.message).toContain('openlora build');
  });

  it('tries a build from source before the shipped file, and says why each was rejected', () => {
    const paths = [put('build/release/openlora.node'), put('build/openlora.node'), put(shipped('cpu'))];
    const { rejected } = failure(() => loadNative({ root, variant: 'cpu' }));
    expect(rejected.map(({ path }) => path)).toEqual(paths);
    for (const { reason } of rejected) expect(reason).toMatch(/file too short|invalid ELF/);
  });

  it('tries the variant of the option alone, whatever the environment says', () => {
    vi.stubEnv('OPENLORA_BACKEND', 'cuda12');
    const path = put(shipped('cuda13'));
    expect(failure(() => loadNative({ root, variant: 'cuda13' })).rejected.map((one) => one.path)).toEqual([path]);
  });

  it('tries the variant of OPENLORA_BACKEND alone', () => {
    vi.stubEnv('OPENLORA_BACKEND', 'cuda12');
    const path = put(shipped('cuda12'));
    put(shipped('cpu'));
    expect(failure(() => loadNative({ root })).rejected.map((one) => one.path)).toEqual([path]);
  });

  it('refuses an unknown OPENLORA_BACKEND by name', () => {
    vi.stubEnv('OPENLORA_BACKEND', 'metal');
    expect(failure(() => loadNative({ root })).message).toBe("backend 'metal' is unknown: one of cuda13, cuda12, cpu");
  });

  it('refuses a Node whose Node-API is too old', () => {
    const { versions } = process;
    Object.defineProperty(process, 'versions', { value: { ...versions, napi: '8' } });
    try {
      expect(failure(() => loadNative({ root })).message).toContain('has Node-API 8, openlora needs 9');
    } finally {
      Object.defineProperty(process, 'versions', { value: versions });
    }
  });
});

describe('the built addon', () => {
  it('is there (npm run build:native)', () => {
    expect(existsSync(join(packageRoot(), 'build/release/openlora.node'))).toBe(true);
  });

  it('is chosen, has the version of the package, and says what was rejected before it', () => {
    const loaded = loadNative();
    expect(loaded.variant).toBe('cpu');
    expect(loaded.path).toBe(join(packageRoot(), 'build/release/openlora.node'));
    expect(loaded.binding.version).toBe(packageVersion());
    expect(loaded.binding.probe().isUsable).toBe(true);
    expect(loaded.rejected.every(({ reason }) => reason.length > 0)).toBe(true);
  });

  it('is loaded once, in turns as well', async () => {
    const { binding } = loadNative();
    expect(loadNative().binding).toBe(binding);
    const inTurns = loadNativeInTurns();
    expect(await Promise.race([inTurns, nextMicrotasks()])).toBe('not in this turn');
    expect((await inTurns).binding).toBe(binding);
    await expect(loadNativeInTurns({ root, variant: 'cpu' })).rejects.toThrow(NativeLoadError);
  });

  it('of another version is rejected', () => {
    const addon = loadNative().path;
    mkdirSync(join(root, 'build/release'), { recursive: true });
    symlinkSync(addon, join(root, 'build/release/openlora.node'));
    const { rejected } = failure(() => loadNative({ root, variant: 'cpu' }));
    expect(rejected[0]?.reason).toBe(`it is version ${packageVersion()}, the package is 1.2.3`);
  });
});
