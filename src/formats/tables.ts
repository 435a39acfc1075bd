// Lists of tensors and sites as the addon takes them: see `Table` in binding.ts.

import {
  LAYER_SITES,
  type AdapterSite,
  type AdapterTensor,
  type BaseTensor,
  type DType,
  type Table,
  type TensorRange,
  type WeightRole,
} from '../native/binding.js';

/** In the order of DType in cpp/tensor/dtype.h. */
const DTYPES: readonly DType[] = ['f32', 'f16', 'bf16'];

/** In the order of WeightRole in cpp/model/model_weights.h. */
const ROLES: readonly WeightRole[] = [
  'embed_tokens',
  'lm_head',
  'final_norm',
  'attn_norm',
  'mlp_norm',
  'attn_post_norm',
  'mlp_post_norm',
  'q_norm',
  'k_norm',
  ...LAYER_SITES,
  ...LAYER_SITES.map((site): WeightRole => `${site}_bias`),
];
const ROLE_NUMBERS = new Map(ROLES.map((role, number) => [role, number]));

/** Numbers of a row. */
const TENSOR_WIDTH = 8;
const SITE_WIDTH = 3;

/** Rows of role, layer, file, offset, bytes, dtype, rows, cols. */
export function baseTensorTable(tensors: readonly BaseTensor[]): Table {
  return tensorTable(tensors, ({ role, layer }) => [ROLE_NUMBERS.get(role)!, layer]);
}

/** Rows of site, 0 for A or 1 for B, file, offset, bytes, dtype, rows, cols. */
export function adapterTensorTable(tensors: readonly AdapterTensor[]): Table {
  return tensorTable(tensors, ({ site, matrix }) => [site, matrix === 'A' ? 0 : 1]);
}

/** Rows of site, rank, scale. */
export function adapterSiteTable(sites: readonly AdapterSite[]): Table {
  const table = new Float64Array(sites.length * SITE_WIDTH);
  sites.forEach(({ site, rank, scale }, i) => table.set([site, rank, scale], i * SITE_WIDTH));
  return table;
}

function tensorTable<T extends TensorRange>(tensors: readonly T[], what: (tensor: T) => [number, number]): Table {
  const table = new Float64Array(tensors.length * TENSOR_WIDTH);
  tensors.forEach((tensor, i) => {
    const { file, offset, bytes, dtype, rows, cols } = tensor;
    table.set([...what(tensor), file, offset, bytes, DTYPES.indexOf(dtype), rows, cols], i * TENSOR_WIDTH);
  });
  return table;
}
