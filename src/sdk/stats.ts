import type { NativeStats } from '../native/binding.js';
import type { AdapterStats, EngineStats } from './types.js';

export function engineStats(native: NativeStats, registered: number): EngineStats {
  const { steps, tokensIn, tokensOut, rows, weightBytesRead, loraBytesRead, loraOps, pageTableReads, preemptions } =
    native;
  return {
    steps,
    tokensIn,
    tokensOut,
    rows,
    rowsPerStep: steps === 0 ? 0 : rows / steps,
    weightBytesRead,
    loraBytesRead,
    loraOps,
    pageTableReads,
    preemptions,
    queue: { waiting: native.requestsQueued, running: native.requestsRunning },
    adapters: adapterStats(native, registered),
    prefix: { tokensLookedUp: native.prefixTokensLookedUp, tokensFound: native.prefixTokensFound },
    graphs: { ...native.graphs },
    bytes: { ...native.bytes },
  };
}

export function adapterStats(native: NativeStats, registered: number): AdapterStats {
  return {
    registered,
    resident: native.adaptersResident,
    host: native.adaptersHost,
    loads: native.adapterLoads,
    evictions: native.adapterEvictions,
    packs: native.adapterPacks,
    bytesRead: native.adapterBytesRead,
    hits: { ...native.adapterHits },
    bytes: native.bytes.adapters,
    hostBytes: native.bytes.hostAdapters,
    pinnedBytes: native.bytes.pinnedAdapters,
  };
}
