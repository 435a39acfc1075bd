import { afterEach, describe, expect, it, vi } from 'vitest';
import { runCli } from './run-cli.js';

afterEach(() => vi.unstubAllEnvs());

describe('openlora doctor', () => {
  it('reports as JSON what this machine offers', async () => {
    const { code, stdout, stderr } = await runCli(['doctor', '--json']);
    const report = JSON.parse(stdout);
    expect(stderr).toBe('');
    expect(report).toMatchObject({
      version: expect.stringMatching(/^\d+\.\d+\.\d+/),
      node: { version: process.version, isSupported: true },
      os: { platform: process.platform, arch: process.arch, libc: expect.any(String) },
      cpu: {
        model: expect.any(String),
        usable: expect.any(Number),
        features: expect.any(Array),
        simdLevels: expect.any(Array),
      },
      memory: { totalBytes: expect.any(Number), availableBytes: expect.any(Number) },
      gpu: { devices: expect.any(Array), note: expect.any(String) },
      native: { rejected: expect.any(Array) },
      demo: { path: expect.any(String), isPresent: expect.any(Boolean) },
    });
    expect(code).toBe(report.native.chosen ? 0 : 1);
  });

  it('says why each binary that was considered is not used', async () => {
    const { native } = JSON.parse((await runCli(['doctor', '--json'])).stdout);
    const text = JSON.stringify(native);
    for (const variant of ['cuda13', 'cuda12']) expect(text).toContain(variant);
    for (const { reason } of native.rejected) expect(reason).not.toBe('');
  });

  it('tells a backend that does not exist', async () => {
    vi.stubEnv('OPENLORA_BACKEND', 'tpu');
    const { code, stdout } = await runCli(['doctor']);
    expect(code).toBe(1);
    expect(stdout).toContain("backend 'tpu' is unknown");
    expect(stdout).toContain('try: openlora build');
  });
});
