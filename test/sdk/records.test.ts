import { describe, expect, test } from 'vitest';
import { decodeRecords, type RecordSink } from '../../src/sdk/records.js';
import type { TokenLogprob } from '../../src/sdk/request-types.js';
import { encodeRecords, type TestRecord } from './encode-records.js';

type Heard = { kind: number; request: number; token?: number; text?: string; logprob?: TokenLogprob | undefined };

function listen(): { heard: Heard[]; sink: RecordSink } {
  const heard: Heard[] = [];
  const sink: RecordSink = {
    onToken: (request, token, text, logprob) => heard.push({ kind: 0, request, token, text, logprob }),
    onPromptLogprob: (request, logprob) => heard.push({ kind: 1, request, logprob }),
    onText: (request, text) => heard.push({ kind: 2, request, text }),
  };
  return { heard, sink };
}

/** mulberry32 */
function randomOf(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) % below;
  };
}

const CHARACTERS = ['a', ' ', 'é', '中', '😀', '\n', '\u0000', '\ufffd', '\ufeff'];

function randomRecord(random: (below: number) => number): TestRecord {
  const kind = random(3);
  const text = Array.from({ length: random(6) }, () => CHARACTERS[random(CHARACTERS.length)]).join('');
  const logprob = () => Math.fround(-random(1_000_000) / 7919);
  const hasLogprob = kind === 1 || (kind === 0 && random(2) === 0);
  const top = Array.from({ length: hasLogprob ? random(21) : 0 }, () => ({
    token: random(2 ** 31),
    logprob: logprob(),
  }));
  const base = { request: 1 + random(2 ** 31), kind, token: random(2 ** 31), text: kind === 1 ? '' : text };
  return hasLogprob ? { ...base, logprob: logprob(), top } : base;
}

function expected({ kind, request, token, text, logprob, top }: TestRecord): Heard {
  const said = logprob === undefined ? undefined : { token, logprob, top: top ?? [] };
  if (kind === 0) return { kind, request, token, text, logprob: said };
  return kind === 1 ? { kind, request, logprob: said } : { kind, request, text };
}

describe('token records', () => {
  test('any run of records is decoded as it was encoded', () => {
    const random = randomOf(1);
    for (let round = 0; round < 500; round++) {
      const records = Array.from({ length: random(12) }, () => randomRecord(random));
      const { heard, sink } = listen();
      decodeRecords(encodeRecords(records), sink);
      expect(heard).toEqual(records.map(expected));
    }
  });

  test('a damaged run throws ERR_INTERNAL or is read within its bounds, and never hangs', () => {
    const random = randomOf(2);
    let refused = 0;
    for (let round = 0; round < 3000; round++) {
      const words = new Uint32Array(encodeRecords([randomRecord(random), randomRecord(random)]));
      const damaged = words.slice(0, words.length - random(2));
      damaged[random(damaged.length)] = random(3) === 0 ? 0xffffffff : random(64);
      try {
        decodeRecords(damaged.buffer, listen().sink);
      } catch (error) {
        refused++;
        expect(error).toMatchObject({ code: 'ERR_INTERNAL' });
      }
    }
    expect(refused).toBeGreaterThan(500);
  });

  test.each([
    ['a length that is no multiple of 4', (bytes: Uint8Array) => bytes.slice(0, 33).buffer],
    ['half a header', (bytes: Uint8Array) => bytes.slice(0, 16).buffer],
    ['a record that is longer than the run', (bytes: Uint8Array) => bytes.slice(0, 32).buffer],
  ])('%s is refused', (_name, damage) => {
    const bytes = new Uint8Array(encodeRecords([{ request: 1, kind: 0, token: 5, text: 'abc' }]));
    expect(() => decodeRecords(damage(bytes), listen().sink)).toThrow(/token record at byte 0/);
  });

  test('an empty run is no record', () => {
    const { heard, sink } = listen();
    decodeRecords(new ArrayBuffer(0), sink);
    expect(heard).toEqual([]);
  });
});
