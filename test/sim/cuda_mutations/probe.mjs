// Faults to plant in kernels/probe.cuh; see run.mjs.

/** @type {{ kind: string, from: string, to: string, also?: [from: string, to: string][] }[]} */
export const mutations = [
  { kind: 'barrier', from: 'dev::SyncWarp();\n  uint32_t plain', to: 'uint32_t plain' },
  { kind: 'barrier', from: 'dev::SyncBlock();\n    fetch(step', to: 'fetch(step' },
  { kind: 'barrier', from: 'if (step >= 2) dev::SyncNamed(3 + step % 2, 128);', to: '' },
  { kind: 'barrier', from: 'dev::SyncNamed(1 + step % 2, 128);', to: '' },
  {
    kind: 'barrier',
    from: 'if (step >= kBulkRing) shared.empty[place].Wait((step / kBulkRing % 2) ^ 1);',
    to: '',
  },
  { kind: 'barrier', from: 'shared.full[place].Wait(step / kBulkRing % 2);', to: '' },
  {
    kind: 'barrier',
    from: 'dev::AtomicAddAcqRel(params.arrived, 1u);',
    to: 'dev::AtomicAdd(params.arrived, 1u);',
  },
  {
    kind: 'wait_group',
    from: 'dev::CopyAsyncWait<kCopyStages - 2>();',
    to: 'dev::CopyAsyncWait<kCopyStages - 1>();',
  },
  { kind: 'wait_group', from: 'ArriveExpect(kBulkFloats * 4)', to: 'ArriveExpect(kBulkFloats * 2)' },
  { kind: 'work list', from: 'turn < params.turns', to: 'turn <= params.turns' },
];
