import { posix } from 'node:path';
import { offendingLines, type Rule, source, type Source } from './source.js';

const LINES_MAX = 500;
const FUNCTION_LINES_MAX = 70;
const isNative = ({ path }: Source): boolean => /^(cpp|cuda)\/.*\.(cc|h|cu|cuh)$/.test(path);

const size: Rule = {
  name: `no file has more than ${LINES_MAX} lines`,
  check: (files) =>
    files.flatMap(({ path, text }) => {
      const lines = text.split('\n').length - 1;
      return lines > LINES_MAX ? [`${path}:1: ${lines} lines`] : [];
    }),
  offending: [[source('src/sdk/big.ts', ...Array<string>(LINES_MAX + 1).fill('x;'))]],
  fine: [source('src/sdk/full.ts', ...Array<string>(LINES_MAX).fill('x;'))],
};

// clang-format puts a function's closing brace where its first line begins: at the border, or two blanks inside a class.
const functionSize: Rule = {
  name: `no C++ function has more than ${FUNCTION_LINES_MAX} lines`,
  check: (files) =>
    files.filter(isNative).flatMap(({ path, text }) => {
      const offences: string[] = [];
      let first = -1;
      let head = '';
      text.split('\n').forEach((line, index) => {
        if (first < 0) {
          if (!/^[A-Za-z_~[]/.test(line) || /^(namespace|extern "C")\b/.test(line) || /;\s*(\/\/.*)?$/.test(line))
            return;
          first = index;
          head = '';
        }
        if (!head.includes('{')) head += `${line} `;
        const isFunction = /\)[^;={]*\{/.test(head) && !/^(struct|class|enum|union)\b/.test(head);
        if (/^\}/.test(line) || (!head.includes('{') && /;\s*$/.test(line)) || /^\S.*\}\s*$/.test(line)) {
          const lines = index - first + 1;
          if (isFunction && lines > FUNCTION_LINES_MAX) offences.push(`${path}:${first + 1}: ${lines} lines`);
          first = -1;
        }
      });
      return offences;
    }),
  offending: [
    [
      source(
        'cpp/engine/engine.cc',
        'Status Step(int a) {',
        ...Array<string>(FUNCTION_LINES_MAX - 1).fill('  x();'),
        '}',
      ),
    ],
    [source('cpp/a/b.cc', 'template <class V>', 'void F(', '    int b) {', ...Array<string>(68).fill('  x();'), '}')],
  ],
  fine: [
    source('cpp/engine/engine.cc', 'Status Step() {', ...Array<string>(FUNCTION_LINES_MAX - 2).fill('  x();'), '}'),
    source('cpp/engine/batch.h', 'struct Batch {', ...Array<string>(90).fill('  int rows = 0;'), '};'),
    source('cpp/engine/table.cc', 'constexpr int kTable[] = {', ...Array<string>(90).fill('  0,'), '};'),
  ],
};

const unfinished: Rule = {
  name: 'no TODO, FIXME, XXX or HACK',
  check: (files) =>
    files.flatMap((file) => offendingLines(file, (line) => /\b(TODO|FIXME|XXX|HACK)\b/.exec(line)?.[0])),
  offending: [[source('cpp/engine/engine.cc', '// TODO: free it')], [source('demo/train/model.py', 'x = 1  # FIXME')]],
  fine: [source('src/sdk/a.ts', 'const todo = 1;')],
};

const nameOf: [RegExp, RegExp, string][] = [
  [/^(cpp|cuda)\/|^test\/.*\.(cc|h)$/, /^[a-z0-9]+(_[a-z0-9]+)*(-inl)?\.(cc|h|cu|cuh)$/, 'snake_case.cc'],
  [/\.[mc]?[tj]s$/, /^[a-z0-9]+(-[a-z0-9]+)*(\.(test|config|d))?\.[mc]?[tj]s$/, 'kebab-case.ts'],
];
const codeName = /\.(cc|h|cu|cuh|[mc]?[tj]s)$/;

const naming: Rule = {
  name: 'files are named snake_case.cc and kebab-case.ts',
  check: (files) =>
    files.flatMap(({ path }) => {
      if (!codeName.test(path)) return [];
      const kind = nameOf.find(([where]) => where.test(path));
      return !kind || kind[1].test(posix.basename(path)) ? [] : [`${path}:1: not ${kind[2]}`];
    }),
  offending: [[source('cpp/base/ThreadPool.cc')], [source('src/sdk/baseModel.ts')], [source('test/native/a-test.cc')]],
  fine: [source('cpp/ops/cpu/gemm-inl.h'), source('src/sdk/base-model.ts'), source('test/sdk/load-base.test.ts')],
};

const keyword = /^(if|for|while|switch|return|const|let|var|auto|import|export|await|throw|delete|#include)\b.*[;{]$/;
const call = /^[\w.:<>-]+(->[\w.]+)?\([^()]*(\([^()]*\))?[^()]*\);$/;
const assignment = /^[\w.[\]>-]+ [+*/|-]?= [^=].*;$/;

const deadCode: Rule = {
  name: 'no code is commented out',
  check: (files) =>
    files.flatMap((file) =>
      offendingLines(file, (line) => {
        const comment = /^\s*\/\/\s?(.*\S)\s*$/.exec(line)?.[1]?.trim() ?? '';
        return [keyword, call, assignment].some((form) => form.test(comment)) ? comment : undefined;
      }),
    ),
  offending: [
    [source('cpp/engine/engine.cc', '  // queue_.push_back(request);')],
    [source('src/sdk/a.ts', '// const x = 1;')],
    [source('src/sdk/a.ts', '// if (isOpen) {')],
    [source('src/sdk/a.ts', '  // total += rows * 2;')],
  ],
  fine: [
    source('cpp/ops/ops.h', '// y[t,:] += (x[t,:]·A_sᵀ)·B_sᵀ for rows t of segment s; B already holds alpha/R.'),
    source('cpp/ops/ops.h', '// Online softmax (Milakov & Gimelshein 2018, alg. 3);', '// the rescale keeps one pass.'),
  ],
};

export const styleRules: readonly Rule[] = [size, functionSize, unfinished, naming, deadCode];
