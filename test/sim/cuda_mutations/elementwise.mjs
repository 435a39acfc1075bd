// Faults to plant in kernels/elementwise.cuh; see run.mjs.

/** @type {{ kind: string, from: string, to: string, also?: [from: string, to: string][] }[]} */
export const mutations = [
  { kind: 'barrier', from: 'dev::SyncBlock();\n    float sum = 0;', to: 'float sum = 0;' },
  { kind: 'barrier', from: 'row += dev::GridBlocks(), turn ^= 1)', to: 'row += dev::GridBlocks())' },
  {
    kind: 'divergence',
    from: 'sum += dev::ShuffleXor(sum, lanes);',
    to: 'if (part.thread * 4 < part.dim) sum += dev::ShuffleXor(sum, lanes);',
  },
  // Who does what.
  {
    kind: 'work list',
    from: 'for (int item = dev::BlockIndex(); item < rows * chunks; item += dev::GridBlocks())',
    to: 'for (int item = 0; item < rows * chunks; ++item)',
  },
  {
    kind: 'work list',
    from: 'item < count_all; item += dev::GridBlocks() * warps)',
    to: 'item < count_all; item += dev::GridBlocks())',
  },
  // Guards of columns, alignment and rows.
  { kind: 'guard', from: 'if (column < columns) body(', to: 'body(' },
  { kind: 'guard', from: 'if (count == 4 && IsAligned(from, 16)) {', to: 'if (IsAligned(from, 16)) {' },
  { kind: 'guard', from: 'if (count == 4 && IsAligned(from, 16)) {', to: 'if (count == 4) {' },
  { kind: 'guard', from: 'if (count == 4 && IsAligned(to, 16)) {', to: 'if (IsAligned(to, 16)) {' },
  { kind: 'guard', from: 'if (count == 4 && IsAligned(to, 8)) {', to: 'if (count == 4) {' },
  { kind: 'guard', from: 'if (count == 4 && IsAligned(to, 8)) {', to: 'if (false) {' },
  { kind: 'guard', from: 'i < count ? from[i] : 0.0f', to: 'from[i]' },
  { kind: 'guard', from: 'if (column < part.dim) body(', to: 'if (column + 4 <= part.dim) body(' },
  { kind: 'guard', from: 'if (params.x != nullptr) {', to: '{' },
  { kind: 'guard', from: 'params.row_is_long != nullptr && ', to: '' },
  { kind: 'guard', from: 'params.long_inv_freq != nullptr && ', to: '' },
  // What stands where.
  { kind: 'index', from: 'params.index != nullptr ? params.index[row] : row', to: 'row' },
  { kind: 'index', from: 'pairs.w[i / 2] >> i % 2 * 16', to: 'pairs.w[i % 2] >> i / 2 * 16' },
  {
    kind: 'index',
    from: 'item % chunks * kChunk + dev::ThreadIndex() * 4',
    to: 'item % chunks * kChunk + dev::ThreadIndex()',
  },
  {
    kind: 'index',
    from: 'shared.sum[turn][dev::Warp()] = of_warp;',
    to: 'shared.sum[turn][dev::Lane()] = of_warp;',
  },
  {
    kind: 'index',
    from: '(q * part.threads + part.thread) * 4',
    to: '(part.thread * quads + q) * 4 % (part.threads * 4)',
  },
  {
    kind: 'index',
    from: 'group < params.groups[0] ? params.gains[0]',
    to: 'group <= params.groups[0] ? params.gains[0]',
  },
  { kind: 'index', from: 'Load(of_row + params.half, count)', to: 'Load(of_row + 2 * count, count)' },
  { kind: 'index', from: 'vector % params.heads;', to: 'vector % quads;' },
  { kind: 'index', from: 'head * params.head_dim + column', to: 'head * 2 * params.half + column' },
  // Arithmetic.
  {
    kind: 'order',
    from: 'ForPart<kNormQuads>(part, [&](int q, int column, int count) { Store(residual + column, held[q], count); });',
    to: '',
  },
  { kind: 'arithmetic', from: 'w < part.threads / 32; ++w', to: 'w < 1; ++w' },
  {
    kind: 'arithmetic',
    from: 'static_cast<float>(params.dim) + params.eps);\n    ForPart<kNormQuads>',
    to: 'static_cast<float>(params.dim));\n    ForPart<kNormQuads>',
  },
  { kind: 'arithmetic', from: 'r = dev::Fma(n, 0x1.777a5cp-25f, r);', to: '' },
  {
    kind: 'arithmetic',
    from: 'p = dev::Fma(p, square, -0x1.555524p-3f);',
    to: 'p = dev::Fma(p, square, -0x1.555556p-3f);',
  },
  { kind: 'arithmetic', from: 'if (quadrant == 1 || quadrant == 2)', to: 'if (quadrant == 1)' },
  { kind: 'arithmetic', from: 'low.v[i] * sin.v[i]);', to: 'rotated_low.v[i] * sin.v[i]);' },
  { kind: 'arithmetic', from: '-0.102943240f', to: '-0.102950f' },
  {
    kind: 'arithmetic',
    from: '1.0f - 2.0f / (dev::Exp2',
    to: '1.0f - 2.0f / (1.0f + dev::Exp2',
    also: [['quad.v[i] * factor) + 1.0f);', 'quad.v[i] * factor * 1.00001f));']],
  },
];
