// What must keep device images from being made, planted in a folder of one small kernel.

import { execFileSync, spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { root } from '../../scripts/files.mjs';

const nvrtc = join(root, 'build', 'cuda-toolkit', '12', 'lib', 'libnvrtc.so.12');

const header = `#pragma once
#include "device/kernel.h"
namespace openlora::tiny {
struct Params {
  float* out;
  int count;
};
}  // namespace openlora::tiny
DEV_KERNEL(tiny, Fill, Params)
`;
const kernel = (body: string, bounds = '') => `#include "device/device.cuh"
#include "kernels/tiny.h"
namespace openlora::tiny {
__global__ void ${bounds} Fill(const Params params) {
${body}
}
}  // namespace openlora::tiny
`;
const fill = '  params.out[dev::ThreadIndex()] = 1.0f;';
// 32 registers a thread for 100 values.
const crowded = `  float y[100];
#pragma unroll
  for (int i = 0; i < 100; ++i) y[i] = params.out[i * dev::ThreadIndex()];
  for (int step = 0; step < params.count; ++step) {
#pragma unroll
    for (int i = 0; i < 100; ++i) y[i] = y[i] * y[(i + 7) % 100] + step;
  }
#pragma unroll
  for (int i = 0; i < 100; ++i) params.out[i] = y[i];`;

describe('device images', () => {
  const folder = mkdtempSync(join(tmpdir(), 'openlora-images-'));
  const compiler = join(folder, 'compile_images');

  beforeAll(() => {
    execFileSync(process.execPath, [join(root, 'scripts', 'cuda', 'fetch.mjs'), '12']);
    const source = join(root, 'cuda', 'images', 'compile_images.cc');
    execFileSync(process.env.CXX ?? 'c++', ['-std=c++20', '-O0', '-o', compiler, source, '-ldl']);
    cpSync(join(root, 'cuda', 'device'), join(folder, 'device'), { recursive: true });
  }, 120_000);
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  /** Compiles one kernel file for 8.0. */
  function compile(cuh: string, h = header) {
    const kernels = join(folder, 'kernels');
    rmSync(kernels, { recursive: true, force: true });
    mkdirSync(kernels);
    writeFileSync(join(kernels, 'tiny.h'), h);
    writeFileSync(join(kernels, 'tiny.cuh'), cuh);
    const options = ['--nvrtc', nvrtc, '--root', folder, '--out', join(folder, 'out'), '--architectures', '80'];
    const { status, stdout, stderr } = spawnSync(compiler, options, { encoding: 'utf8' });
    return { status, stdout, stderr, files: readdirSync(join(folder, 'out')).sort() };
  }

  it('are a cubin, PTX, names and a line of the table', () => {
    const { status, stdout, stderr, files } = compile(kernel(fill));
    expect(stderr).toBe('');
    expect(status).toBe(0);
    expect(files).toEqual(['tiny.names', 'tiny.ptx', 'tiny.sm_80.cubin']);
    expect(readFileSync(join(folder, 'out', 'tiny.names'), 'utf8')).toBe(
      'tiny::Fill _ZN8openlora4tiny4FillENS0_6ParamsE\n',
    );
    expect(stdout).toMatch(/^tiny::Fill +sm_80 +\d+ +0 +0 +0$/m);
    expect(stdout).toMatch(/^fine: sm_80$/m);
  });

  it.each([
    ['a warning', kernel(`  int unused;\n${fill}`), header, /tiny\.cuh\(5\): warning .*"unused"/],
    ['an error', kernel('  params.none = 1;'), header, /tiny\.cuh\(5\): error/],
    ['a spill', kernel(crowded, '__launch_bounds__(1024, 2)'), header, /sm_80 .*: tiny::Fill spills [1-9]\d* bytes/],
    ['a kernel that is not declared', `${kernel(fill)}__global__ void More() {}\n`, header, /no DEV_KERNEL .*More/],
    ['a kernel that is not defined', kernel(fill), `${header}DEV_KERNEL(tiny, None, Params)\n`, /tiny::None/],
    ['no DEV_KERNEL at all', kernel(fill), header.replace('DEV_KERNEL', '// DEV_KERNEL'), /declares no kernel/],
  ])('are refused for %s', (_what, cuh, h, message) => {
    compile(kernel(fill));
    const { status, stdout, stderr } = compile(cuh, h);
    expect(stderr).toMatch(message);
    expect(status).toBe(1);
    expect(stdout).not.toMatch(/^fine:.*sm_80/m);
  });
});
