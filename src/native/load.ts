// Which openlora.node runs in this process: the first of the candidates that loads and says that it can run here.

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { setImmediate as nextTurn } from 'node:timers/promises';
import nodeGypBuild from 'node-gyp-build';
import type { NativeAddon } from './binding.js';
import { packageRoot, packageVersion } from './package-root.js';

/** Best first. */
export const NATIVE_VARIANTS = ['cuda13', 'cuda12', 'cpu'] as const;
export type NativeVariant = (typeof NATIVE_VARIANTS)[number];

/** Of `process.versions.napi`; npm does not enforce `engines`. */
export const NAPI_VERSION_MIN = 9;

export interface NativeRejection {
  /** The file, or the folder in which a file was expected. */
  path: string;
  reason: string;
}

export interface LoadedNative {
  binding: NativeAddon;
  variant: NativeVariant;
  path: string;
  /** Better candidates that could not be used, in the order in which they were tried. */
  rejected: NativeRejection[];
}

export interface LoadNativeOptions {
  /** Try this one alone. Default: the environment's OPENLORA_BACKEND, else each of NATIVE_VARIANTS. */
  variant?: NativeVariant | undefined;
  /** Folder of the package. */
  root?: string | undefined;
}

/** `code` is stable; src/sdk turns it into an OpenLoraError. */
export class NativeLoadError extends Error {
  readonly code = 'ERR_NATIVE_NOT_FOUND';
  constructor(
    message: string,
    readonly rejected: NativeRejection[],
  ) {
    super(message);
    this.name = 'NativeLoadError';
  }
}

/** By path. Not by `require`, whose look round for a package costs the JS thread more than the loading. */
const loaded = new Map<string, NativeAddon>();

/** Loads the addon; throws NativeLoadError if no candidate can be used. */
export function loadNative(options: LoadNativeOptions = {}): LoadedNative {
  const steps = load(options);
  for (;;) {
    const step = steps.next();
    if (step.done) return step.value;
  }
}

/** The same, with a turn of the event loop between looking for a candidate and opening it. */
export async function loadNativeInTurns(options: LoadNativeOptions = {}): Promise<LoadedNative> {
  const steps = load(options);
  for (;;) {
    const step = steps.next();
    if (step.done) return step.value;
    await nextTurn();
  }
}

/** Yields before it opens what it found. */
function* load(options: LoadNativeOptions): Generator<undefined, LoadedNative> {
  const napi = Number(process.versions.napi);
  if (!(napi >= NAPI_VERSION_MIN)) {
    throw new NativeLoadError(
      `Node ${process.version} has Node-API ${napi}, openlora needs ${NAPI_VERSION_MIN}: use Node 20.19 or later`,
      [],
    );
  }
  const root = options.root ?? packageRoot();
  const rejected: NativeRejection[] = [];
  for (const variant of chosenVariants(options.variant)) {
    for (const candidate of candidates(root, variant)) {
      if ('reason' in candidate) {
        rejected.push(candidate);
        continue;
      }
      yield;
      try {
        return { binding: open(candidate.path, packageVersion(root)), variant, path: candidate.path, rejected };
      } catch (error) {
        rejected.push({ path: candidate.path, reason: error instanceof Error ? error.message : String(error) });
      }
    }
  }
  const tried = rejected.map(({ path, reason }) => `\n  ${path}: ${reason}`).join('');
  throw new NativeLoadError(
    `no openlora.node can be used here; \`openlora build\` makes one from source${tried}`,
    rejected,
  );
}

function chosenVariants(option: NativeVariant | undefined): readonly NativeVariant[] {
  const name = option ?? process.env.OPENLORA_BACKEND;
  if (name === undefined || name === '') return NATIVE_VARIANTS;
  const variant = NATIVE_VARIANTS.find((known) => known === name);
  if (variant !== undefined) return [variant];
  throw new NativeLoadError(`backend '${name}' is unknown: one of ${NATIVE_VARIANTS.join(', ')}`, []);
}

/** Each is looked for only when those before it can't be used. */
function* candidates(root: string, variant: NativeVariant): Generator<{ path: string } | NativeRejection> {
  if (variant === 'cpu') {
    // A build from source, made on purpose, goes before what was shipped.
    for (const folder of ['build/release', 'build']) {
      const path = join(root, folder, 'openlora.node');
      if (existsSync(path)) yield { path };
    }
  }
  const folder = join(root, 'variants', variant);
  const path = existsSync(folder) ? resolved(folder) : undefined;
  yield path === undefined ? { path: folder, reason: `no binary for ${process.platform}-${process.arch}` } : { path };
}

function resolved(folder: string): string | undefined {
  try {
    return nodeGypBuild.resolve(folder);
  } catch {
    return undefined;
  }
}

function open(path: string, version: string): NativeAddon {
  const binding = loaded.get(path) ?? dlopen(path);
  if (binding.version !== version) throw new Error(`it is version ${binding.version}, the package is ${version}`);
  const probe = binding.probe();
  if (!probe.isUsable) throw new Error(probe.reason);
  return binding;
}

function dlopen(path: string): NativeAddon {
  const module = { exports: {} };
  process.dlopen(module, path);
  const binding = module.exports as NativeAddon;
  loaded.set(path, binding);
  return binding;
}
