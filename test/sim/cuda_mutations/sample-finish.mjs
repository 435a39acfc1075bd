// Faults to plant in kernels/sample_finish.cuh; see run.mjs.

/** @type {{ kind: string, from: string, to: string, also?: [from: string, to: string][] }[]} */
export const mutations = [
  { kind: 'barrier', from: 'dev::SyncBlock();\n  return shared.token;', to: 'return shared.token;' },
  {
    kind: 'barrier',
    from: 'dev::SyncBlock();\n  if (dev::ThreadIndex() == 0) {\n    shared.list_begin[0]',
    to: 'if (dev::ThreadIndex() == 0) {\n    shared.list_begin[0]',
  },
  {
    kind: 'guard',
    from: 'if (first + 4 <= end) {',
    to: '{',
    also: [
      [
        '  } else {\n#pragma unroll\n    for (int i = 0; i < 3; ++i)',
        '  }\n  if (first + 4 > end) {\n    for (int i = 0; i < 3; ++i)',
      ],
    ],
  },
  { kind: 'order', from: '(a > b) == ((low & run) == 0)', to: '(a > b) == ((low & step) == 0)' },
  { kind: 'order', from: '(top_p * kept != 0 ? 1 : 0)', to: '1' },
  {
    kind: 'order',
    from: 'shared.list[kListMax + middle] >= inside',
    to: 'shared.list[kListMax + middle] > inside',
  },
  { kind: 'index', from: '((1u << dev::Lane()) - 1)', to: '((2u << dev::Lane()) - 1)' },
  {
    kind: 'index',
    from: 'found.low = range.low + (static_cast<uint64_t>(part) << shift)',
    to: 'found.low = range.low',
  },
  { kind: 'index', from: 'static_cast<int>(inside) - 1;', to: 'static_cast<int>(inside);' },
  {
    kind: 'index',
    from: 'row.seen_begin + row.seen_count; i += dev::BlockThreads()) {\n    const int token',
    to: 'row.seen_count; i += dev::BlockThreads()) {\n    const int token',
  },
  {
    kind: 'work list',
    from: 'for (int index = dev::BlockIndex(); index < rows; index += dev::GridBlocks())',
    to: 'for (int index = 0; index < rows; ++index)',
  },
];
