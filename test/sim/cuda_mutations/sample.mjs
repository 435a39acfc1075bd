// Faults to plant in kernels/sample.cuh; see run.mjs.

/** @type {{ kind: string, from: string, to: string, also?: [from: string, to: string][] }[]} */
export const mutations = [
  { kind: 'barrier', from: 'dev::SyncBlock();\n  const int lane', to: 'const int lane' },
  { kind: 'guard', from: 'own = x <= kLargest ?', to: 'own = !(x > kLargest) ?' },
  { kind: 'guard', from: 'if (was_finite) x =', to: 'if (false) x =' },
  { kind: 'order', from: 'x == 0 ? 0 : dev::FloatToBits(x)', to: 'dev::FloatToBits(x)' },
];
