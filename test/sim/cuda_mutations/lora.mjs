// Faults to plant in kernels/lora.cuh; see run.mjs.

/** @type {{ kind: string, from: string, to: string, also?: [from: string, to: string][] }[]} */
export const mutations = [
  // Barriers removed or weakened.
  { kind: 'barrier', from: 'dev::SyncBlock();\n  if (dev::Warp() == 0) {', to: 'if (dev::Warp() == 0) {' },
  { kind: 'barrier', from: 'dev::SyncBlock();\n  return work.begin', to: 'return work.begin' },
  {
    kind: 'barrier',
    from: 'dev::SyncBlock();\n  const int row = dev::ThreadIndex() / kTileRanks',
    to: 'const int row = dev::ThreadIndex() / kTileRanks',
  },
  {
    kind: 'barrier',
    from: 'dev::SyncBlock();\n  const int row = dev::ThreadIndex() / kTileRanks',
    to: 'dev::SyncWarp();\n  const int row = dev::ThreadIndex() / kTileRanks',
  },
  { kind: 'barrier', from: 'dev::SyncBlock();  // sums and rings', to: '// sums and rings' },
  {
    kind: 'barrier',
    from: 'dev::SyncBlock();\n    fetch(t + kStages - 1);',
    to: 'fetch(t + kStages - 1);',
  },
  {
    kind: 'barrier',
    from: 'dev::SyncBlock();\n    fetch(t + kStages - 1);',
    to: 'dev::SyncWarp();\n    fetch(t + kStages - 1);',
  },
  { kind: 'barrier', from: 'dev::SyncBlock();\n  StoreExpand', to: 'StoreExpand' },
  // Copies not waited for, or waited for too late.
  {
    kind: 'wait_group',
    from: 'dev::CopyAsyncWait<kStages - 2>();  // a lane',
    to: 'dev::CopyAsyncWait<kStages - 1>();  // a lane',
  },
  {
    kind: 'wait_group',
    from: 'dev::CopyAsyncWait<kStages - 2>();\n    dev::SyncBlock();',
    to: 'dev::CopyAsyncWait<kStages - 1>();\n    dev::SyncBlock();',
  },
  {
    kind: 'wait_group',
    from: 'dev::CopyAsyncWait<kStages - 2>();\n    dev::SyncBlock();',
    to: 'dev::SyncBlock();\n    dev::CopyAsyncWait<kStages - 2>();',
  },
  {
    kind: 'wait_group',
    from: 'if (step < steps) FetchShrink(params, shared, work, tiles, step);\n    dev::CopyAsyncCommit();',
    to: 'if (step < steps) {\n      FetchShrink(params, shared, work, tiles, step);\n      dev::CopyAsyncCommit();\n    }',
  },
  {
    kind: 'wait_group',
    from: 'if (t < tiles) FetchExpand(params, shared, work, t);\n    dev::CopyAsyncCommit();',
    to: 'if (t < tiles) {\n      FetchExpand(params, shared, work, t);\n      dev::CopyAsyncCommit();\n    }',
  },
  { kind: 'wait_group', from: 'fetch(step + kStages - 1);', to: 'fetch(step + kStages);' },
  { kind: 'wait_group', from: 'fetch(t + kStages - 1);', to: 'fetch(t + kStages);' },
  {
    kind: 'wait_group',
    from: 'lane = dev::Lane(), stage = step % kStages;',
    to: 'lane = dev::Lane(), stage = step % 2;',
    also: [['const int stage = step % kStages;', 'const int stage = step % 2;']],
  },
  {
    kind: 'wait_group',
    from: 'shared.b[t % kStages][half * kRunRanks',
    to: 'shared.b[t % 2][half * kRunRanks',
    also: [['shared.b[t % kStages][rank]', 'shared.b[t % 2][rank]']],
  },
  // Operands of mma and ldmatrix.
  {
    kind: 'fragment',
    from: '{low.w[0], high.w[0], low.w[1], high.w[1]}',
    to: '{low.w[0], low.w[1], high.w[0], high.w[1]}',
  },
  { kind: 'fragment', from: '[stage][q][group + 8][pair * 8]', to: '[stage][q][group][pair * 8]' },
  {
    kind: 'fragment',
    from: 'Mma<is_f16>(sums, a1, x.w[2], x.w[3]);',
    to: 'Mma<is_f16>(sums, a1, x.w[3], x.w[2]);',
  },
  {
    kind: 'fragment',
    from: 'shared.sum[warp][group + i / 2 * 8][pair * 2 + i % 2]',
    to: 'shared.sum[warp][group + i % 2 * 8][pair * 2 + i / 2]',
  },
  { kind: 'fragment', from: 't * kTileRanks + pair * 2 + 8]', to: 't * kTileRanks + pair * 2]' },
  { kind: 'fragment', from: 'lane / 16 * 8 + lane % 8, out', to: 'lane / 8 % 2 * 8 + lane % 8, out' },
  { kind: 'fragment', from: 'dev::LoadMatrix4Trans(a,', to: 'dev::LoadMatrix4(a,' },
  {
    kind: 'fragment',
    from: 'shared.y[pair * 2 + i % 2][warp * 64 + m * 16 + group + i / 2 * 8]',
    to: 'shared.y[pair * 2 + i / 2][warp * 64 + m * 16 + group + i % 2 * 8]',
  },
  {
    kind: 'fragment',
    from: 'Bits16 b[kStages][kTileRanks][kChunkOuts + 8];',
    to: 'Bits16 b[kStages][kTileRanks][kChunkOuts + 4];',
    also: [['static_assert(sizeof(ExpandShared) == kExpandSharedBytes);', '']],
  },
  { kind: 'fragment', from: 'dev::MmaF16(sums, a, b0, b1);', to: 'dev::MmaBF16(sums, a, b0, b1);' },
  { kind: 'fragment', from: 'is_f16 ? dev::PackF16(h, 0)', to: 'is_f16 ? dev::PackBF16(h, 0)' },
  // The page table.
  { kind: 'page table', from: 'frame += 1 + index;', to: 'frame += index;' },
  {
    kind: 'page table',
    from: 'if (column < run.columns_first) tile.groups += run.offset;',
    to: 'tile.groups += run.offset;',
  },
  {
    kind: 'page table',
    from: 'tile.begin = run.columns_first + index * run.columns_each;',
    to: 'tile.begin = index * run.columns_each;',
  },
  {
    kind: 'page table',
    from: '(inside / kGroup * ranks + rank) * kGroup',
    to: '(inside / kGroup * kRunRanks + rank) * kGroup',
  },
  {
    kind: 'page table',
    from: 'work.site.a + first / kRunRanks, column)',
    to: 'work.site.a + first / kTileRanks, column)',
  },
  {
    kind: 'page table',
    from: 'work.site.b + first / kRunRanks, column)',
    to: 'work.site.a + first / kRunRanks, column)',
  },
  {
    kind: 'page table',
    from: 'if (has_run && column >= tiles[half].end)',
    to: 'if (has_run && column > tiles[half].end)',
  },
  {
    kind: 'page table',
    from: 'params.slots[params.segment_slot[work.item.segment]];\n    work.site = work.slot.sites[params.products[work.item.product].site];\n    const int parts',
    to: 'params.slots[work.item.segment];\n    work.site = work.slot.sites[params.products[work.item.product].site];\n    const int parts',
  },
  // Guards of rows, ranks, columns and outputs.
  {
    kind: 'guard',
    from: 'const bool has = has_run && rank < ranks;\n      dev::CopyAsync16(&shared.a',
    to: 'const bool has = has_run;\n      dev::CopyAsync16(&shared.a',
  },
  {
    kind: 'guard',
    from: 'const bool has = has_run && rank < ranks;\n      dev::CopyAsync16(&shared.b',
    to: 'const bool has = has_run;\n      dev::CopyAsync16(&shared.b',
  },
  {
    kind: 'guard',
    from: 'const bool has_run = ranks > 0 && column < params.in;',
    to: 'const bool has_run = ranks > 0;',
  },
  {
    kind: 'guard',
    from: 'const bool has_run = ranks > 0 && column < width;',
    to: 'const bool has_run = ranks > 0;',
  },
  { kind: 'guard', from: 'dev::Min(8, dev::Max(0, params.in - column - c))', to: '8' },
  { kind: 'guard', from: 'if (row < work.item.rows) {  // ranks', to: '{  // ranks' },
  {
    kind: 'guard',
    from: 'for (int step = 0; step < steps; ++step) {',
    to: 'for (int step = 0; step <= steps; ++step) {',
  },
  {
    kind: 'guard',
    from: 'if (row < work.item.rows && work.out0 + c < product.out)',
    to: 'if (row < work.item.rows)',
  },
  {
    kind: 'guard',
    from: 'if (row < work.item.rows && work.out0 + c < product.out)',
    to: 'if (work.out0 + c < product.out)',
  },
  { kind: 'guard', from: 'dev::Min(kRows, end - item.entry)', to: 'kRows' },
  // Threads that go different ways.
  {
    kind: 'divergence',
    from: 'dev::SyncBlock();\n  StoreExpand',
    to: 'if (warp > 0) dev::SyncBlock();\n  StoreExpand',
  },
  {
    kind: 'divergence',
    from: 'before += dev::Shuffle(sum, 31);',
    to: 'if (s < segments) before += dev::Shuffle(sum, 31);',
  },
  {
    kind: 'divergence',
    from: 'Mma<is_f16>(sums[m], a, h0, h1);',
    to: 'if (lane != 3) Mma<is_f16>(sums[m], a, h0, h1);',
  },
  // Who does what.
  {
    kind: 'work list',
    from: 'for (int i = dev::BlockIndex(); i < count; i += dev::GridBlocks()) {\n    ShrinkItem',
    to: 'for (int i = 0; i < count; ++i) {\n    ShrinkItem',
  },
  {
    kind: 'work list',
    from: 'for (int i = dev::BlockIndex(); i < count; i += dev::GridBlocks()) {\n    ExpandItem',
    to: 'for (int i = 0; i < count; ++i) {\n    ExpandItem',
  },
  {
    kind: 'work list',
    from: 'i < count; i += dev::GridBlocks()) {\n    ExpandItem',
    to: 'i < count - 1; i += dev::GridBlocks()) {\n    ExpandItem',
  },
  {
    kind: 'work list',
    from: 'if (work.begin[middle] <= index) {',
    to: 'if (work.begin[middle] < index) {',
  },
  { kind: 'work list', from: 'item.part -= of_product;', to: '' },
  { kind: 'work list', from: 'begin + inside / parts * kRows', to: 'begin' },
  { kind: 'work list', from: 'if (dev::Lane() >= distance) sum += left;', to: 'sum += left;' },
  {
    kind: 'work list',
    from: 'for (int part = 1; part < parts; ++part)',
    to: 'for (int part = 1; part < 1; ++part)',
  },
  {
    kind: 'work list',
    from: 'for (int w = 1; w < kWarps; ++w) h +=',
    to: 'for (int w = 1; w < kWarps - 1; ++w) h +=',
  },
];
