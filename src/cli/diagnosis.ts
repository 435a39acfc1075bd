// The facts behind `openlora doctor`. Nothing here throws: what can't be found out is said to be unknown.

import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import * as os from 'node:os';
import { join } from 'node:path';
import type { ProbeResult } from '../native/binding.js';
import {
  NAPI_VERSION_MIN,
  NATIVE_VARIANTS,
  NativeLoadError,
  loadNative,
  type NativeRejection,
  type NativeVariant,
} from '../native/load.js';
import { packageRoot, packageVersion } from '../native/package-root.js';
import { demoFolder } from './demo/tasks.js';

const NVIDIA_SMI_MS = 5_000;

export interface Diagnosis {
  version: string;
  node: { version: string; napi: number; napiWanted: number; isSupported: boolean };
  os: { platform: string; release: string; arch: string; libc: string };
  cpu: {
    model: string;
    /** Processors that the process may be scheduled on. */
    usable: number;
    /** Of the control group, in processors. */
    quota?: number;
    features: string[];
    simdLevels: string[];
  };
  memory: {
    totalBytes: number;
    availableBytes: number;
    /** Of the control group. */
    limitBytes?: number;
  };
  gpu: { devices: { name: string; memory: string; driver: string }[]; note: string };
  native: { chosen?: { variant: NativeVariant; path: string }; rejected: NativeRejection[] };
  demo: { path: string; isPresent: boolean };
}

export function diagnose(): Diagnosis {
  const native = findNative();
  const napi = Number(process.versions.napi);
  const quota = cpuQuota();
  const limit = process.constrainedMemory();
  const demo = demoFolder();
  return {
    version: packageVersion(),
    node: { version: process.version, napi, napiWanted: NAPI_VERSION_MIN, isSupported: napi >= NAPI_VERSION_MIN },
    os: { platform: process.platform, release: os.release(), arch: process.arch, libc: libc() },
    cpu: {
      model: os.cpus()[0]?.model.trim() || 'unknown processor',
      usable: os.availableParallelism(),
      ...(quota === undefined ? {} : { quota }),
      features: native.probe?.cpuFeatures ?? [],
      simdLevels: native.probe?.simdLevels ?? [],
    },
    memory: {
      totalBytes: os.totalmem(),
      availableBytes: availableMemory(),
      // Without a limit, Linux reports a number near 2^63.
      ...(limit && limit < os.totalmem() ? { limitBytes: limit } : {}),
    },
    gpu: findGpus(native.chosen?.variant),
    native: { ...(native.chosen ? { chosen: native.chosen } : {}), rejected: native.rejected },
    demo: {
      path: demo,
      isPresent: existsSync(join(demo, 'tasks.json')) && existsSync(join(demo, 'base', 'config.json')),
    },
  };
}

interface FoundNative {
  chosen?: { variant: NativeVariant; path: string };
  probe?: ProbeResult;
  rejected: NativeRejection[];
}

/** What loadBase would take, and why each of the others was not taken. */
function findNative(): FoundNative {
  const found: FoundNative = { rejected: [] };
  const isForced = Boolean(process.env.OPENLORA_BACKEND);
  for (const variant of isForced ? [undefined] : NATIVE_VARIANTS) {
    try {
      const loaded = loadNative(variant === undefined ? {} : { variant });
      found.rejected.push(...loaded.rejected);
      if (found.chosen) found.rejected.push({ path: loaded.path, reason: `${found.chosen.variant} goes before it` });
      else {
        found.chosen = { variant: loaded.variant, path: loaded.path };
        found.probe = loaded.binding.probe();
      }
    } catch (error) {
      if (error instanceof NativeLoadError && error.rejected.length > 0) found.rejected.push(...error.rejected);
      else
        found.rejected.push({
          path: variant ?? packageRoot(),
          reason: error instanceof Error ? error.message : String(error),
        });
    }
  }
  return found;
}

function libc(): string {
  if (process.platform !== 'linux') return 'system libc';
  const { header } = process.report.getReport() as { header: { glibcVersionRuntime?: string } };
  return header.glibcVersionRuntime ? `glibc ${header.glibcVersionRuntime}` : 'musl';
}

function availableMemory(): number {
  return typeof process.availableMemory === 'function' ? process.availableMemory() : os.freemem();
}

/** cgroup v2: `max 100000` or `150000 100000` (microseconds of each period). */
function cpuQuota(): number | undefined {
  try {
    const [quota, period] = readFileSync('/sys/fs/cgroup/cpu.max', 'utf8').trim().split(' ').map(Number);
    return quota! > 0 && period! > 0 ? Number((quota! / period!).toFixed(2)) : undefined;
  } catch {
    return undefined;
  }
}

/** The driver's own tool is asked; no file is sniffed for. */
function findGpus(variant: NativeVariant | undefined): Diagnosis['gpu'] {
  const asked = spawnSync('nvidia-smi', ['--query-gpu=name,memory.total,driver_version', '--format=csv,noheader'], {
    encoding: 'utf8',
    timeout: NVIDIA_SMI_MS,
  });
  if (asked.error || asked.status !== 0) {
    const why = asked.error
      ? 'nvidia-smi is not there'
      : `nvidia-smi failed: ${asked.stderr.trim() || asked.stdout.trim()}`;
    return { devices: [], note: `no NVIDIA driver found (${why.split('\n')[0]}); the CPU computes` };
  }
  const devices = asked.stdout
    .trim()
    .split('\n')
    .map((line) => line.split(',').map((cell) => cell.trim()))
    .map(([name = '', memory = '', driver = '']) => ({ name, memory, driver }));
  return {
    devices,
    note:
      variant === 'cpu'
        ? 'the binary in use is for the CPU: it leaves GPUs alone'
        : `used by ${variant ?? 'no binary'}`,
  };
}
