// The addon's side of src/sdk/records.ts, written from the layout in src/native/binding.ts.

import { RECORD_HEADER_BYTES } from '../../src/native/binding.js';

export interface TestRecord {
  request: number;
  kind: number;
  token: number;
  text: string;
  logprob?: number;
  top?: { token: number; logprob: number }[];
}

export function encodeRecords(records: readonly TestRecord[]): ArrayBuffer {
  const parts = records.map((record) => {
    const text = Buffer.from(record.text, 'utf8');
    const top = record.top ?? [];
    const size = RECORD_HEADER_BYTES + top.length * 8 + Math.ceil(text.length / 4) * 4;
    const part = Buffer.alloc(size);
    const isPrompt = record.kind === 1;
    part.writeUInt32LE(size, 0);
    part.writeUInt32LE(record.request, 4);
    part.writeUInt32LE(record.kind, 8);
    part.writeUInt32LE(record.token, 12);
    part.writeFloatLE(record.logprob ?? 0, 16);
    part.writeUInt32LE(top.length, 20);
    part.writeUInt32LE(text.length, 24);
    part.writeUInt32LE(record.logprob !== undefined || isPrompt ? 1 : 0, 28);
    top.forEach(({ token, logprob }, i) => {
      part.writeUInt32LE(token, RECORD_HEADER_BYTES + i * 8);
      part.writeFloatLE(logprob, RECORD_HEADER_BYTES + i * 8 + 4);
    });
    text.copy(part, RECORD_HEADER_BYTES + top.length * 8);
    return part;
  });
  // A buffer of its own: Buffer.concat may give a piece of Node's pool.
  const joined = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    joined.set(part, at);
    at += part.length;
  }
  return joined.buffer;
}
