// Faults to plant in kernels/embed.cuh; see run.mjs.

/** @type {{ kind: string, from: string, to: string, also?: [from: string, to: string][] }[]} */
export const mutations = [
  // Who does what.
  {
    kind: 'work list',
    from: 'for (int item = dev::BlockIndex(); item < items; item += dev::GridBlocks())',
    to: 'for (int item = 0; item < items; ++item)',
  },
  {
    kind: 'work list',
    from: 'entry < entries; entry += dev::GridBlocks() * warps)',
    to: 'entry < entries; entry += kThreads)',
  },
  // Guards of columns, ranks and segments.
  { kind: 'guard', from: 'if (column >= params.hidden) continue;', to: '' },
  {
    kind: 'guard',
    from: 'if (params.hidden - column >= 4 && reinterpret_cast<uint64_t>(out) % 16 == 0)',
    to: 'if (params.hidden - column >= 4)',
  },
  {
    kind: 'guard',
    from: 'if (params.hidden - column >= 4 && reinterpret_cast<uint64_t>(out) % 16 == 0)',
    to: 'if (reinterpret_cast<uint64_t>(out) % 16 == 0)',
  },
  { kind: 'guard', from: 'if (column + i < params.hidden) out[i]', to: 'out[i]' },
  { kind: 'guard', from: 'if (segments == 0) return;', to: '' },
  {
    kind: 'fragment',
    from: 'const float a = is_f16 ? dev::F16ToFloat(bits)',
    to: 'const float a = is_f16 ? dev::ToFloat(bits)',
  },
  { kind: 'guard', from: 'if (rank < site.rank) bits =', to: 'bits =' },
  {
    kind: 'guard',
    from: 'const int ranks = dev::CeilDiv(site.rank, lora::kTileRanks) * lora::kTileRanks;',
    to: 'const int ranks = site.rank;',
  },
  // What stands where.
  {
    kind: 'index',
    from: '(group * kTableRows + token % kTableRows)',
    to: '(group * kTableRows + token / kTableRows)',
  },
  {
    kind: 'index',
    from: 'const int groups = dev::CeilDiv(params.hidden, kTableColumns)',
    to: 'const int groups = params.hidden / kTableColumns',
  },
  { kind: 'index', from: 'pairs.w[i / 2] >> i % 2 * 16', to: 'pairs.w[i / 2] >> (1 - i % 2) * 16' },
  { kind: 'index', from: 'params.row_token[lora.entry_row[entry]]', to: 'params.row_token[entry]' },
  {
    kind: 'index',
    from: 'const int middle = (low + high + 1) / 2;',
    to: 'const int middle = (low + high) / 2 + 1;',
    also: [['lora.segment_start[middle] <= entry', 'lora.segment_start[middle] < entry']],
  },
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
  { kind: 'page table', from: 'if (column >= run.columns_first) {', to: 'if (column > run.columns_first) {' },
  {
    kind: 'page table',
    from: '(inside / kGroup * ranks + rank) * kGroup',
    to: '(inside / kGroup * kRunRanks + rank) * kGroup',
  },
  { kind: 'page table', from: 'rank % kRunRanks, column)', to: 'rank, column)' },
  { kind: 'arithmetic', from: 'lora::kRankMax + rank] = a * params.scale;', to: 'lora::kRankMax + rank] = a;' },
];
