import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { installPacked, type Installed, root } from './installed.js';

// gcc 12 and glibc 2.36 (Debian 12) with a static C++ run time: pthread and dl functions moved to 2.34. Ubuntu 22.04 has 2.35.
const GLIBC_MAX = [2, 34] as const;
// Kernels for nine architectures are 15 and 21 MiB of cuda12 and cuda13, packed 3 and 5.
const PACKED_BYTES_MAX = 20 * 2 ** 20;
const UNPACKED_BYTES_MAX = 64 * 2 ** 20;

const allowed = [
  /^(package\.json|README\.md|LICENSE|CHANGELOG\.md|CMakeLists\.txt|binding\.gyp)$/,
  /^dist\/[\w.-]+\.(js|cjs|d\.ts|d\.cts)$/,
  /^variants\/\w+\/prebuilds\/[\w-]+\/openlora\.glibc\.node$/,
  /^variants\/cuda1[23]\/prebuilds\/[\w-]+\/cuda_images\/(?!probe|plain)\w+\.(sm_\d+\.cubin|ptx|names)$/,
  /^demo\/(README\.md|tasks\.json)$/,
  /^demo\/(base|adapters)\/[\w./-]+\.(json|safetensors|jinja|md)$/,
  /^cpp\/[\w./-]+\.(cc|h|md)$/,
  /^cuda\/(README\.md|(?!sim\/)[\w./-]+\.(cc|h|cuh))$/,
  /^test\/cases\/\w+\.(h|md)$/,
  /^cmake\/\w+\.(cmake|map)$/,
  /^docs\/\w+\.md$/,
];
const required = [
  'dist/index.js',
  'dist/index.cjs',
  'dist/index.d.ts',
  'dist/index.d.cts',
  'dist/cli.js',
  'dist/tokenizer-worker.js',
  'dist/folder-worker.js',
  'demo/base/config.json',
  'demo/base/model.safetensors',
  'demo/base/tokenizer.json',
  'demo/tasks.json',
  ...['api', 'bench', 'cli', 'errors', 'models', 'tokenizers'].map((name) => `docs/${name}.md`),
  'README.md',
  'LICENSE',
  'CHANGELOG.md',
  'CMakeLists.txt',
  'binding.gyp',
];

let installed: Installed;
beforeAll(() => {
  installed = installPacked();
});
afterAll(() => installed?.remove());

/** Runs a file of test/package/consumer in the project; its output. */
function consume(file: string, ...args: string[]): string {
  const options = { cwd: installed.project, encoding: 'utf8', timeout: 240_000 } as const;
  const { status, signal, stdout, stderr } = spawnSync(process.execPath, [file, ...args], options);
  expect({ status, signal, stderr }).toEqual({ status: 0, signal: null, stderr: '' });
  return stdout;
}

describe('the tarball', () => {
  it('holds what it must and nothing else', () => {
    const paths = installed.packed.files.map(({ path }) => path);
    expect(paths.filter((path) => !allowed.some((form) => form.test(path)))).toEqual([]);
    expect(required.filter((path) => !paths.includes(path))).toEqual([]);
  });

  it('keeps its size budget', () => {
    expect(installed.packed.size).toBeLessThan(PACKED_BYTES_MAX);
    expect(installed.packed.unpackedSize).toBeLessThan(UNPACKED_BYTES_MAX);
  });

  it('runs nothing when it is installed', () => {
    const manifest = JSON.parse(readFileSync(join(installed.folder, 'package.json'), 'utf8'));
    expect(manifest.gypfile).toBe(false);
    const hooks = ['preinstall', 'install', 'postinstall', 'prepare', 'prepublish'];
    expect(Object.keys(manifest.scripts).filter((name) => hooks.includes(name))).toEqual([]);
  });

  it('is clean for publint', () => {
    const tool = join(root, 'node_modules/publint/src/cli.js');
    const { status, stdout } = spawnSync(process.execPath, [tool, 'run', installed.packed.tarball, '--strict'], {
      encoding: 'utf8',
    });
    expect(status, stdout).toBe(0);
  });

  it('has right types for ESM, CommonJS and bundlers (are-the-types-wrong)', () => {
    const tool = join(root, 'node_modules/@arethetypeswrong/cli/dist/index.js');
    const { status, stdout } = spawnSync(process.execPath, [tool, installed.packed.tarball], { encoding: 'utf8' });
    expect(status, stdout).toBe(0);
  });
});

const VARIANTS = ['cpu', 'cuda12', 'cuda13'];

describe.each(VARIANTS)('the addon, %s', (variant) => {
  const addon = (): string => join(installed.folder, 'variants', variant, 'prebuilds/linux-x64/openlora.glibc.node');

  it(`needs no glibc newer than ${GLIBC_MAX.join('.')} and no C++ run time`, () => {
    const symbols = execFileSync('objdump', ['-p', addon()], { encoding: 'utf8' });
    const versions = [...symbols.matchAll(/GLIBC_(\d+)\.(\d+)/g)].map(([, major, minor]) => [
      Number(major),
      Number(minor),
    ]);
    expect(versions.length).toBeGreaterThan(0);
    const isTooNew = ([major = 0, minor = 0]: number[]): boolean => major > GLIBC_MAX[0] || minor > GLIBC_MAX[1];
    expect(versions.filter(isTooNew)).toEqual([]);
    expect(symbols).not.toMatch(/NEEDED\s+libstdc\+\+/);
  });

  it('exports nothing but what Node looks for', () => {
    const table = execFileSync('nm', ['-D', '--defined-only', addon()], { encoding: 'utf8' });
    const names = table.split('\n').flatMap((line) => /\s[TDBRVWui]\s(\S+)$/.exec(line)?.[1] ?? []);
    expect(names.sort()).toEqual(['napi_register_module_v1', 'node_api_module_get_api_version_v1']);
  });
});

// Those of NVRTC 12 know no 10.3, 11.0 and 12.1, which run the images of 10.0 and 12.0 or are compiled from the PTX.
describe.each([
  ['cuda12', [80, 86, 89, 90, 100, 120]],
  ['cuda13', [80, 86, 89, 90, 100, 103, 110, 120, 121]],
])('the images of %s', (variant, architectures) => {
  it('are of every kernel file for every architecture', () => {
    const folder = join(installed.folder, 'variants', variant, 'prebuilds/linux-x64/cuda_images');
    const kernels = readdirSync(join(root, 'cuda/kernels')).filter(
      (name) => name.endsWith('.cuh') && name !== 'probe.cuh',
    );
    const wanted = kernels.flatMap((name) => {
      const stem = name.replace('.cuh', '');
      return [...architectures.map((one) => `${stem}.sm_${one}.cubin`), `${stem}.names`, `${stem}.ptx`];
    });
    expect(readdirSync(folder).sort()).toEqual(wanted.sort());
  });
});

describe('in an empty project', () => {
  it('computes on a CPU where no GPU can be used, and says why', ({ skip }) => {
    const { native } = JSON.parse(consume('node_modules/.bin/openlora', 'doctor', '--json')) as {
      native: { chosen: { variant: string }; rejected: { path: string; reason: string }[] };
    };
    skip(native.chosen.variant !== 'cpu', 'there is a driver');
    const reasons = VARIANTS.slice(1).map(
      (variant) => native.rejected.find(({ path }) => path.includes(variant))?.reason,
    );
    for (const reason of reasons) expect(reason).toMatch(/NVIDIA driver/);
  });

  it('answers through import', () => {
    const { base, adapters } = JSON.parse(consume('esm.mjs')) as { base: string; adapters: string[] };
    for (const answer of ['ORANGE', 'egnaro', 'aegnor', 'o****e']) expect(adapters).toContain(answer);
    expect(base).not.toBe('ORANGE');
  });

  it('answers the same through require', () => {
    expect(JSON.parse(consume('cjs.cjs'))).toEqual(JSON.parse(consume('esm.mjs')));
  });

  it('knows the errors of both copies where import and require are used in one process', () => {
    expect(consume('both.mjs').trim()).toBe('two copies, one kind of error');
  });

  it('survives worker threads that are terminated at work', () => {
    expect(consume('workers.mjs').trim()).toBe('12 workers ended');
  });

  it('answers the same in a worker thread', () => {
    expect(JSON.parse(consume('in-worker.mjs'))).toEqual(JSON.parse(consume('esm.mjs')));
  });

  it('runs the demo from its command', () => {
    type Side = { rssGrowthBytes: number; modelBytes: number };
    const report = JSON.parse(consume('node_modules/.bin/openlora', 'demo', '--json')) as {
      summary: { requests: number; right: number };
      memory: { shared: Side; copies: Side & { count: number } } | null;
    };
    expect(report.summary.requests).toBe(64);
    expect(report.summary.right).toBeGreaterThanOrEqual(61);
    const { shared, copies } = report.memory!;
    expect(copies.count).toBe(12);
    // Twelve times the weights against once and the adapters.
    expect(copies.modelBytes / shared.modelBytes).toBeGreaterThan(3);
    expect(copies.modelBytes / shared.modelBytes).toBeLessThan(12);
    expect(shared.rssGrowthBytes).toBeGreaterThan(0);
    expect(copies.rssGrowthBytes).toBeGreaterThan(copies.modelBytes);
  });

  it.each(['machine', 'ops', 'decode', 'prefill'])('measures from its command: bench %s', (bench) => {
    const words = ['node_modules/.bin/openlora', 'bench', bench, '--quick', '--json'];
    const { status, stdout, stderr } = spawnSync(process.execPath, words, {
      ...{ cwd: installed.project, encoding: 'utf8', timeout: 240_000 },
    });
    expect({ status, stderr: stderr.replace(/^writing .*\n/, '') }).toEqual({ status: 0, stderr: '' });
    const report = JSON.parse(stdout) as { bench: string; lines: unknown[] };
    expect(report.bench).toBe(bench);
    expect(report.lines.length).toBeGreaterThan(1);
  });

  it('has a command', () => {
    const version = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')).version as string;
    expect(consume('node_modules/.bin/openlora', '--version')).toContain(version);
  });

  it.each([
    ['NodeNext', 'NodeNext'],
    ['ESNext', 'bundler'],
  ])('type-checks with module %s, resolution %s', (module, moduleResolution) => {
    const compilerOptions = {
      ...{ target: 'ES2022', lib: ['ES2022'], strict: true, exactOptionalPropertyTypes: true, noEmit: true },
      ...{ skipLibCheck: false, module, moduleResolution },
      ...{ types: ['node'], typeRoots: [join(root, 'node_modules/@types')] },
    };
    const include = moduleResolution === 'bundler' ? ['types.mts'] : ['types.mts', 'types.cts'];
    const config = join(installed.project, `tsconfig.${moduleResolution}.json`);
    writeFileSync(config, JSON.stringify({ compilerOptions, include }));
    const tsc = join(root, 'node_modules/typescript/bin/tsc');
    const { status, stdout } = spawnSync(process.execPath, [tsc, '-p', config], { encoding: 'utf8' });
    expect(status, stdout).toBe(0);
  });

  it('says clearly that no binary fits', () => {
    expect(consume('no-binary.mjs').trim()).toBe('ERR_NATIVE_NOT_FOUND');
    expect(existsSync(join(installed.folder, 'build'))).toBe(false);
  });
});
