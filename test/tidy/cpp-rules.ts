import { posix } from 'node:path';
import { isCpp, offendingLines, type Rule, source, type Source } from './source.js';

// What a layer of cpp/ may include besides itself; an entry with a dot is one header. Every layer may include base.
const opsViews = ['tensor', 'ops/batch_view.h', 'ops/kv_view.h'];
const cppArrows: Record<string, readonly string[]> = {
  base: [],
  tensor: ['base'],
  ops: ['tensor', 'base'],
  'ops/reference': ['ops', 'tensor', 'base'],
  'ops/cpu': ['ops', 'tensor', 'base'],
  // An adapter is packed by the op table that will read it.
  memory: ['ops/device.h', 'ops/ops.h', ...opsViews, 'base'],
  model: ['memory', 'ops', 'tensor', 'base'],
  engine: ['model', 'memory', 'ops/device.h', 'ops/ops.h', ...opsViews, 'base'],
  // Runs the cases of test/cases, which it ships with, on an implementation and on the reference.
  bench: ['cases', 'ops', 'ops/cpu', 'ops/reference', 'tensor', 'base'],
  napi: ['bench', 'engine', 'model', 'memory', 'tensor', 'base'],
};
// The composition root chooses the op table, so it alone sees the implementations.
const compositionRoot = 'cpp/napi/addon.cc';
const compositionArrows = ['ops', 'ops/cpu', 'ops/reference', 'cuda/ops/backend.h'];

function layerOf(header: string): string {
  const folder = posix.dirname(header);
  return folder in cppArrows ? folder : (folder.split('/')[0] ?? '');
}

function includeOffence(path: string, header: string): string | undefined {
  const layer = layerOf(path.slice('cpp/'.length));
  const allowed = [layer, ...(cppArrows[layer] ?? []), ...(path === compositionRoot ? compositionArrows : [])];
  if (allowed.includes(header) || allowed.includes(layerOf(header))) return undefined;
  return `${layer} may not include "${header}"`;
}

const quoted = (line: string): string | undefined => /^\s*#\s*include\s+"([^"]+)"/.exec(line)?.[1];
const bracketed = (line: string): string | undefined => /^\s*#\s*include\s+<([^>]+)>/.exec(line)?.[1];
const included = (line: string): string | undefined => quoted(line) ?? bracketed(line);

const arrows: Rule = {
  name: 'C++ includes follow the arrows of ARCHITECTURE.md',
  check: (files) =>
    files.filter(isCpp).flatMap((file) =>
      offendingLines(file, (line) => {
        const header = quoted(line);
        return header === undefined || header === 'napi.h' ? undefined : includeOffence(file.path, header);
      }),
    ),
  offending: [
    [source('cpp/base/status.cc', '#include "tensor/dtype.h"')],
    [source('cpp/ops/ops.h', '#include "memory/frame_pool.h"')],
    [source('cpp/ops/cpu/gemm.cc', '#include "ops/reference/reference_ops.h"')],
    [source('cpp/memory/kv_cache.cc', '#include "ops/cpu/cpu_ops.h"')],
    [source('cpp/model/decoder_forward.cc', '#include "engine/request.h"')],
    [source('cpp/napi/marshal.cc', '#include "ops/cpu/cpu_ops.h"')],
    [source('cpp/engine/batch.cc', '#include "../memory/kv_cache.h"')],
  ],
  fine: [
    source(
      'cpp/memory/kv_cache.cc',
      '#include "memory/kv_cache.h"',
      '#include "ops/device.h"',
      '#include "base/check.h"',
    ),
    source('cpp/engine/engine.cc', '#include "model/decoder_forward.h"', '#include "ops/ops.h"', '#include <vector>'),
    source('cpp/napi/addon.cc', '#include "ops/cpu/cpu_ops.h"'),
  ],
};

/** A header family that only some folders may include. */
function onlyIn(name: string, header: RegExp, folders: readonly string[], example: string, here: string): Rule {
  return {
    name,
    check: (files) =>
      files
        .filter(({ path }) => /\.(cc|h|cu|cuh)$/.test(path) && !folders.some((folder) => path.startsWith(folder)))
        .filter(({ path }) => /^(cpp|cuda)\//.test(path))
        .flatMap((file) =>
          offendingLines(file, (line) => {
            const found = included(line);
            return found !== undefined && header.test(found) ? `${found} outside ${folders.join(', ')}` : undefined;
          }),
        ),
    offending: [[source('cpp/engine/engine.cc', example)], [source('cpp/model/forward.h', `  ${example}`)]],
    fine: [source(here, example), source('cpp/engine/engine.cc', '#include <vector>', '#include "base/file.h"')],
  };
}

const napi = onlyIn(
  'napi.h is seen by cpp/napi alone',
  /^(napi|node_api|js_native_api|uv|v8)(-inl)?(\.h|\/)/,
  ['cpp/napi/'],
  '#include <napi.h>',
  'cpp/napi/addon.cc',
);
const cuda = onlyIn(
  'CUDA headers are seen by cuda/ alone',
  /^(cuda|cublas|nvrtc|nvml|cooperative_groups|mma\.h)/,
  ['cuda/', 'cpp/napi/addon.cc'],
  '#include <cuda_runtime.h>',
  'cuda/device/stream.cc',
);
const intrinsics = onlyIn(
  'intrinsics are used in cpp/ops/cpu and for SHA-256 alone',
  /^(\w*intrin|arm_neon|arm_sve|arm_acle|cpuid)\.h$/,
  ['cpp/ops/cpu/', 'cpp/base/sha256_processor.cc'],
  '#include <immintrin.h>',
  'cpp/ops/cpu/simd_avx2.h',
);
const system = onlyIn(
  'the operating system is called in cpp/base and cpp/tensor alone',
  /^(sys\/|linux\/|(unistd|fcntl|pthread|sched|dlfcn|poll|signal|spawn|dirent|ftw|windows|ucontext|execinfo)\.h$)/,
  ['cpp/base/', 'cpp/tensor/', 'cuda/'],
  '#include <sys/mman.h>',
  'cpp/tensor/mapped_file.cc',
);
const json = onlyIn(
  'JSON is parsed in TypeScript alone',
  /json|yyjson|jansson|cjson/i,
  [],
  '#include <nlohmann/json.hpp>',
  'src/none.h',
);

const libuvPool: Rule = {
  name: "nothing runs on libuv's pool",
  check: (files) =>
    files
      .filter(isCpp)
      .flatMap((file) =>
        offendingLines(
          file,
          (line) =>
            /\b(AsyncWorker|AsyncProgress\w*Worker|napi_\w*_async_work|uv_queue_work|uv_work_t)\b/.exec(line)?.[0],
        ),
      ),
  offending: [
    [source('cpp/napi/load.cc', 'class LoadWorker : public Napi::AsyncWorker {')],
    [source('cpp/napi/load.cc', 'class LoadWorker : public Napi::AsyncProgressQueueWorker<char> {')],
    [source('cpp/napi/load.h', '  napi_create_async_work(env, nullptr, name, Execute, Complete, this, &work_);')],
    [source('cpp/base/pool.cc', 'uv_queue_work(loop, &request, Work, After);')],
  ],
  fine: [source('cpp/napi/load.cc', 'Napi::AsyncContext context(env, "openlora");', 'Napi::ThreadSafeFunction wake;')],
};

// Asking the processor for tile state is a system call that belongs to the AMX level.
const kernelHeader = /^(cstdint|cstddef|\w*intrin\.h|arm_neon\.h)$/;

const kernels: Rule = {
  name: 'SIMD level files reach no library header but <cstdint>, <cstddef> and intrinsics',
  check: (files) => {
    const byPath = new Map(files.filter(isCpp).map((file) => [file.path, file]));
    const pending = [...byPath.keys()].filter((path) => /^cpp\/ops\/cpu\/level_\w+\.cc$/.test(path));
    const seen = new Set(pending);
    const offences: string[] = [];
    for (let path = pending.pop(); path !== undefined; path = pending.pop()) {
      const file: Source | undefined = byPath.get(path);
      if (!file) continue;
      offences.push(
        ...offendingLines(file, (line) => {
          const own = quoted(line);
          if (own !== undefined && !seen.has(`cpp/${own}`)) {
            seen.add(`cpp/${own}`);
            pending.push(`cpp/${own}`);
          }
          const library = bracketed(line);
          return library === undefined || kernelHeader.test(library)
            ? undefined
            : `<${library}> reaches a kernel object`;
        }),
      );
    }
    return offences;
  },
  offending: [
    [source('cpp/ops/cpu/level_avx2.cc', '#include <cmath>')],
    [
      source('cpp/ops/cpu/level_avx2.cc', '#include "ops/cpu/gemm-inl.h"'),
      source('cpp/ops/cpu/gemm-inl.h', '#include <algorithm>'),
    ],
  ],
  fine: [
    source(
      'cpp/ops/cpu/level_avx2.cc',
      '#include <immintrin.h>',
      '#include <cstdint>',
      '#include "ops/cpu/gemm-inl.h"',
    ),
    source('cpp/ops/cpu/gemm-inl.h', '#include <cstddef>'),
    source('cpp/ops/cpu/dispatch.cc', '#include <cmath>'),
  ],
};

export const cppRules: readonly Rule[] = [arrows, napi, libuvPool, cuda, intrinsics, system, json, kernels];
