// Faults to plant in kernels/attention.cuh; see run.mjs.

/** @type {{ kind: string, from: string, to: string, also?: [from: string, to: string][] }[]} */
export const mutations = [
  { kind: 'barrier', from: 'dev::SyncBlock();  // and the ring is free', to: '' },
  {
    kind: 'barrier',

    from: 'dev::SyncBlock();\n    if (step + 1 < end)',
    to: 'dev::SyncWarp();\n    if (step + 1 < end)',
  },
  {
    kind: 'wait_group',

    from: 'dev::CopyAsyncWait<kStages - 2>();',
    to: 'dev::CopyAsyncWait<kStages - 1>();',
  },
  {
    kind: 'wait_group',

    from: 'if (step + 1 < end) Fetch(params, ring, tile, range, step + 1);',
    to: 'if (step + 2 < end) Fetch(params, ring, tile, range, step + 2);',
  },
  {
    kind: 'fragment',

    from: '{p[k * 2][0], p[k * 2][1], p[k * 2 + 1][0], p[k * 2 + 1][1]}',
    to: '{p[k * 2][0], p[k * 2 + 1][0], p[k * 2][1], p[k * 2 + 1][1]}',
  },
  { kind: 'fragment', from: 'dev::LoadMatrix4Trans(b,', to: 'dev::LoadMatrix4(b,' },
  {
    kind: 'fragment',

    from: '[n * 16 + lane / 16 * 8 + lane % 8][k * 16 + lane / 8 % 2 * 8]',
    to: '[n * 16 + lane % 16][k * 16 + lane / 16 * 8]',
  },
  { kind: 'guard', from: 'position >= range.begin && position', to: 'position' },
  {
    kind: 'guard',

    from: 'position < range.end && column < cache.head_dim;',
    to: 'position < range.end;',
  },
  { kind: 'guard', from: 'position < seen.begin || position', to: 'position' },
  { kind: 'guard', from: 'seen.begin || position >= seen.end)', to: 'seen.begin)' },
  { kind: 'guard', from: '{of_last.begin, of_first.end}}', to: '{of_last.begin, of_last.end}}' },
  {
    kind: 'guard',

    from: 'if (!pair.has || !HasSplit(pair.seen, split)) continue;',
    to: 'if (!pair.has) continue;',
  },
  {
    kind: 'guard',

    from: 'if (!pair.has || !HasSplit(pair.seen, split)) continue;',
    to: 'if (!HasSplit(pair.seen, split)) continue;',
  },
  { kind: 'guard', from: 'if (split > first) before =', to: 'before =' },
  { kind: 'guard', from: '      k = {{~0u, ~0u, ~0u, ~0u}};\n', to: '' },
  { kind: 'page table', from: 'cache.layers + cache.layer]', to: 'cache.layers]' },
  { kind: 'page table', from: 'cache.table[cache.table_begin[sequence] + ', to: 'cache.table[' },
  {
    kind: 'order',

    from: 'dev::Fma(before, factors.before, now * factors.now)',
    to: 'before + now * factors.now',
  },
  { kind: 'order', from: '    sums.weight[half] += dev::ShuffleXor(sums.weight[half], 2);\n', to: '' },
  {
    kind: 'work list',

    from: 'for (int split = seen.begin / kSplit; split',
    to: 'for (int split = 0; split',
  },
  {
    kind: 'work list',

    from: 'for (int i = dev::BlockIndex(); i < count; i += dev::GridBlocks()) {',
    to: 'for (int i = 0; i < count; ++i) {',
  },
  {
    kind: 'work list',

    from: 'if ((step + 1) * kStep<dims> <= tile.warp.some.begin ||',
    to: 'if ((step + 1) * kStep<dims> <= tile.warp.every.begin ||',
  },
];
