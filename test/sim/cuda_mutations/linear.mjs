// Faults to plant in kernels/linear.cuh; see run.mjs.

/** @type {{ kind: string, from: string, to: string, also?: [from: string, to: string][] }[]} */
export const mutations = [
  // Barriers removed, weakened, or made superfluous no longer.
  { kind: 'barrier', from: 'dev::SyncBlock();  // one for each', to: '// one for each' },
  { kind: 'barrier', from: 'turn ^= 1;', to: '' },
  { kind: 'barrier', from: 'dev::SyncBlock();\n      FetchGemm', to: 'FetchGemm' },
  { kind: 'barrier', from: 'dev::SyncBlock();\n      FetchGemm', to: 'dev::SyncWarp();\n      FetchGemm' },
  // Copies not waited for, or waited for too late.
  {
    kind: 'wait_group',
    from: 'dev::CopyAsyncWait<kStages - 2>();\n    FetchStream',
    to: 'dev::CopyAsyncWait<kStages - 1>();\n    FetchStream',
  },
  {
    kind: 'wait_group',
    from: 'dev::CopyAsyncWait<kStages - 2>();\n      dev::SyncBlock();',
    to: 'dev::SyncBlock();\n      dev::CopyAsyncWait<kStages - 2>();',
  },
  {
    kind: 'wait_group',
    from: '  next.stage = (next.stage + 1) % kStages;\n  dev::CopyAsyncCommit();\n}\n\n// The warp',
    to: '  next.stage = (next.stage + 1) % kStages;\n  if (next.index < batch.items) dev::CopyAsyncCommit();\n}\n\n// The warp',
  },
  {
    kind: 'wait_group',
    from: 'dev::CopyAsyncWait<kStages - 2>();\n      dev::SyncBlock();\n      FetchGemm(params, batch, shared, next);\n      // The ring',
    to: 'dev::CopyAsyncWait<kStages - 2>();\n      dev::SyncBlock();\n      FetchGemm(params, batch, shared, next);\n      FetchGemm(params, batch, shared, next);\n      // The ring',
  },
  // Operands of mma.
  {
    kind: 'fragment',
    from: '{low.w[step * 2], high.w[step * 2], low.w[step * 2 + 1], high.w[step * 2 + 1]}',
    to: '{low.w[step * 2], low.w[step * 2 + 1], high.w[step * 2], high.w[step * 2 + 1]}',
  },
  {
    kind: 'fragment',
    from: 'a, x[n].w[step * 2], x[n].w[step * 2 + 1]',
    to: 'a, x[n].w[step], x[n].w[step + 2]',
  },
  { kind: 'fragment', from: 'dev::Lane() / 4 + i / 2 * 8;', to: 'dev::Lane() / 4 + i % 2 * 8;' },
  { kind: 'fragment', from: 'dev::MmaF16(sums, a, b0, b1);', to: 'dev::MmaBF16(sums, a, b0, b1);' },
  // Guards of rows, columns, outputs and groups.
  { kind: 'guard', from: 'dev::Min(*params.rows, params.rows_max)', to: '*params.rows' },
  { kind: 'guard', from: 'own < batch.rows ? dev::Min', to: 'true ? dev::Min' },
  { kind: 'guard', from: 'dev::Min(8, dev::Max(0, params.in - column))', to: '8' },
  {
    kind: 'guard',
    from: 'if (out >= product.out || own >= batch.rows) continue;',
    to: 'if (out >= product.out) continue;',
  },
  {
    kind: 'guard',
    from: 'if (out >= product.out || own >= batch.rows) continue;',
    to: 'if (own >= batch.rows) continue;',
  },
  { kind: 'guard', from: 'q < shape.groups_each && next.group + q < end', to: 'q < shape.groups_each' },
  { kind: 'guard', from: 'q < shape.groups_each && group + q < end', to: 'q < shape.groups_each' },
  { kind: 'guard', from: 'if (group >= batch.groups) break;', to: '' },
  { kind: 'guard', from: 'if (q >= groups) break;', to: '' },
  { kind: 'guard', from: 'if (warp < next.item.tiles) FetchTile', to: 'FetchTile' },
  { kind: 'guard', from: 'dev::CeilDiv(params.in, kGroup)', to: 'params.in / kGroup' },
  {
    kind: 'guard',
    from: 'dev::CeilDiv(batch.rows - item.row, kTileRows)',
    to: '(batch.rows - item.row) / kTileRows',
  },
  // Where things stand.
  {
    kind: 'index',
    from: '(item.tile + tile) * batch.groups + group)',
    to: '(item.tile + tile) * kChunkGroups + group)',
  },
  { kind: 'index', from: 'pieces + 2 * params.tiles_each + n);', to: 'pieces + 2 * next.item.tiles + n);' },
  {
    kind: 'index',
    from: 'int row = item.row + dev::Warp() * kTileRows;',
    to: 'int row = dev::Warp() * kTileRows;',
  },
  { kind: 'index', from: 'product.bias[out]', to: 'product.bias[out % kTileOuts]' },
  { kind: 'index', from: 'tile0 = dev::Warp() % 2 * kWarpTiles', to: 'tile0 = dev::Warp() / 4 * kWarpTiles' },
  {
    kind: 'index',
    from: 'warp / 2 * kWarpRowTiles * kTileRows >= batch.rows',
    to: 'warp * kWarpRowTiles * kTileRows >= batch.rows',
  },
  { kind: 'index', from: 'next.item.row + n * kTileRows, next.group', to: 'n * kTileRows, next.group' },
  // The order of sums.
  {
    kind: 'order',
    from: 'shared.chunk[turn][c][warp][lane]',
    to: 'shared.chunk[turn][kStreamWarps - 1 - c][warp][lane]',
  },
  {
    kind: 'order',
    from: 'if (done % kChunkGroups != 0 && done < batch.groups) continue;',
    to: 'if (done < batch.groups) continue;',
  },
  { kind: 'order', from: 'sums[m][n].v[i] = 0;', to: '' },
  {
    kind: 'order',
    from: 'next.group = (chunk + kStreamWarps) * kChunkGroups;',
    to: 'next.group = (chunk + 1) * kChunkGroups;',
  },
  // Who does what.
  { kind: 'work list', from: 'if (m < item.tiles) Store', to: 'Store' },
  { kind: 'work list', from: 'part -= parts;', to: '' },
  { kind: 'work list', from: 'index / batch.row_blocks;', to: 'index % batch.row_blocks;' },
  {
    kind: 'work list',
    from: 'index < batch.items; index += dev::GridBlocks()) {\n    const Item item = ItemOf(params, batch, index, params',
    to: 'index < batch.items; ++index) {\n    const Item item = ItemOf(params, batch, index, params',
  },
  { kind: 'work list', from: 'next.group = warp * kChunkGroups;', to: 'next.group = 0;' },
  { kind: 'work list', from: '*y = product.accumulates ? *y + sum : sum;', to: '*y = *y + sum;' },
];
