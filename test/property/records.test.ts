import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { decodeRecords } from '../../src/sdk/records.js';
import { encodeRecords, type TestRecord } from '../sdk/encode-records.js';
import { byteChanges, coded, holds, withBytes } from './property.js';

const uint32 = fc.nat({ max: 0xffffffff });
const logprob = fc.record({ token: uint32, logprob: fc.float({ noNaN: true }) });

const record: fc.Arbitrary<TestRecord> = fc.oneof(
  fc.record({ request: uint32, kind: fc.constant(0), token: uint32, text: fc.string({ unit: 'grapheme' }) }),
  fc.record({
    request: uint32,
    kind: fc.constantFrom(0, 1),
    token: uint32,
    text: fc.constant(''),
    logprob: fc.float({ noNaN: true }),
    top: fc.array(logprob, { maxLength: 20 }),
  }),
  fc.record({ request: uint32, kind: fc.constant(2), token: fc.constant(0), text: fc.string({ unit: 'grapheme' }) }),
);

function decode(buffer: ArrayBuffer): TestRecord[] {
  const found: TestRecord[] = [];
  decodeRecords(buffer, {
    onToken: (request, token, text, about) =>
      found.push({ request, kind: 0, token, text, ...(about && { logprob: about.logprob, top: about.top }) }),
    onPromptLogprob: (request, about) => found.push({ request, kind: 1, ...about, text: '' }),
    onText: (request, text) => found.push({ request, kind: 2, token: 0, text }),
  });
  return found;
}

describe('token records', () => {
  test('are what was packed', () =>
    holds(fc.array(record, { maxLength: 12 }), (list) => expect(decode(encodeRecords(list))).toEqual(list)));

  test('are decoded or refused by a code, whatever their bytes', () =>
    holds(fc.tuple(fc.array(record, { maxLength: 4 }), byteChanges), ([list, bytes]) => {
      const damaged = withBytes(new Uint8Array(encodeRecords(list)), bytes);
      return coded(/^ERR_INTERNAL$/, () => decode(new Uint8Array(damaged).buffer));
    }));

  test('are decoded or refused by a code where they are noise', () =>
    holds(fc.uint32Array({ maxLength: 40, max: 60 }), (words) =>
      coded(/^ERR_INTERNAL$/, () => decode(new Uint32Array(words).buffer)),
    ));
});
