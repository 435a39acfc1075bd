import { appendFile, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { OpenLoraError } from '../../src/errors.js';
import { Pacer } from '../../src/formats/pacer.js';
import { parseSafetensorsHeader, readSafetensorsHeader } from '../../src/formats/safetensors.js';
import { expectCode, newFolder, random, safetensors, safetensorsOf } from './fixtures.js';

const pacer = () => new Pacer();
const parse = (file: Buffer) =>
  parseSafetensorsHeader(file.subarray(8, 8 + Number(file.readBigUInt64LE())), file.length, 'x', pacer());
const parseText = (header: string, dataBytes = 0) => parse(safetensorsOf(header, dataBytes));

async function onDisk(content: Buffer): Promise<string> {
  const path = join(await newFolder(), 'model.safetensors');
  await writeFile(path, content);
  return path;
}

describe('a safetensors header', () => {
  test('gives each tensor with its place in the file', async () => {
    const file = safetensors({
      a: { dtype: 'F32', shape: [2, 3] },
      b: { dtype: 'BF16', shape: [] },
      c: { dtype: 'F16', shape: [0, 9] },
    });
    const { tensors, metadata } = await readSafetensorsHeader(await onDisk(file), pacer());
    const data = 8 + Number(file.readBigUInt64LE());
    expect([...tensors.values()]).toEqual([
      { name: 'a', dtype: 'F32', shape: [2, 3], offset: data, bytes: 24 },
      { name: 'b', dtype: 'BF16', shape: [], offset: data + 24, bytes: 2 },
      { name: 'c', dtype: 'F16', shape: [0, 9], offset: data + 26, bytes: 0 },
    ]);
    expect(metadata).toEqual({ format: 'pt' });
  });

  test('may have any order of keys, white space, escapes and trailing spaces', async () => {
    const header =
      ' {\n "\\u0061\\"": { "data_offsets" : [0, 4], "shape" : [ 1 ], "dtype" : "F32" } , "é": {"shape":[2],"dtype":"U8","data_offsets":[4,6]} }   ';
    const { tensors } = await parseText(header, 6);
    expect([...tensors.keys()]).toEqual(['a"', 'é']);
  });

  test('may be empty of tensors', async () => {
    expect((await parseText('{}')).tensors.size).toBe(0);
  });

  test('of 300 tensors is checked in slices under a millisecond', async () => {
    const tensors = Object.fromEntries(
      Array.from({ length: 300 }, (_, i) => [
        `base_model.model.model.layers.${i}.q_proj.lora_A.weight`,
        { dtype: 'F32', shape: [8, 64] },
      ]),
    );
    const file = safetensors(tensors);
    const slices: number[] = [];
    for (let run = 0; run < 5; run++) {
      let began = performance.now();
      class Timed extends Pacer {
        override async rest() {
          slices.push(performance.now() - began);
          await super.rest();
          began = performance.now();
        }
      }
      await parseSafetensorsHeader(file.subarray(8, 8 + Number(file.readBigUInt64LE())), file.length, 'x', new Timed());
      slices.push(performance.now() - began);
    }
    // The median of warm slices: a shared machine may take the thread away in any one of them.
    expect(slices.sort((a, b) => a - b)[slices.length >> 1]).toBeLessThan(1);
  });
});

// What safetensors 0.8.0 takes and what it refuses, each tried.
describe('metadata', () => {
  const withMetadata = (text: string) =>
    parseSafetensorsHeader(Buffer.from(`{"__metadata__":${text}}`), 8 + 17 + text.length, 'x', pacer());

  test.each([
    ['{"a":"b"}', { a: 'b' }],
    ['{ }', {}],
    ['null', {}],
    ['{"":""}', { '': '' }],
    ['{"a":"b","a":"c"}', { a: 'c' }],
    ['{"__proto__":"x"}', JSON.parse('{"__proto__":"x"}') as object],
  ])('%s is read', async (text, wanted) => expect((await withMetadata(text)).metadata).toEqual(wanted));

  test.each(['[]', '"x"', '1', 'true', '{"a":1}', '{"a":null}', '{"a":{}}', '{"a":["b"]}', '{"a":true}'])(
    '%s is refused',
    (text) => expectCode(withMetadata(text), 'ERR_SAFETENSORS_HEADER', /__metadata__ is not a map of strings/),
  );
});

describe('a damaged safetensors file', () => {
  const good = safetensors({ a: { dtype: 'F32', shape: [2, 3] }, b: { dtype: 'F32', shape: [4] } });

  test('cut anywhere is truncated', async () => {
    for (const bytes of [0, 3, 7, 8, 30, good.length - 41, good.length - 40, good.length - 1]) {
      const path = await onDisk(good);
      await truncate(path, bytes);
      await expectCode(readSafetensorsHeader(path, pacer()), 'ERR_SAFETENSORS_TRUNCATED');
    }
  });

  test('with bytes behind the last tensor is refused', async () => {
    const path = await onDisk(good);
    await appendFile(path, 'x');
    await expectCode(readSafetensorsHeader(path, pacer()), 'ERR_SAFETENSORS_RANGE', /1 bytes after tensor b/);
  });

  test.each([0n, 1n, 100_000_001n, 2n ** 63n, 2n ** 64n - 1n])(
    'with a header length of %s is refused',
    async (length) => {
      const file = Buffer.from(good);
      file.writeBigUInt64LE(length);
      await expectCode(readSafetensorsHeader(await onDisk(file), pacer()), 'ERR_SAFETENSORS_HEADER', String(length));
    },
  );

  test('with a header length over the file is truncated', async () => {
    const file = Buffer.from(good);
    file.writeBigUInt64LE(99_999_999n);
    await expectCode(readSafetensorsHeader(await onDisk(file), pacer()), 'ERR_SAFETENSORS_TRUNCATED');
  });

  const f32 = (offsets: string, shape = '[1]') => `{"dtype":"F32","shape":${shape},"data_offsets":${offsets}}`;
  const cases: [string, string, string, RegExp?][] = [
    ['not an object', '[]', 'HEADER'],
    ['no JSON', '{"a"', 'HEADER'],
    ['an unclosed string', '{"a', 'HEADER'],
    ['an unclosed entry', `{"a":{"dtype"}`, 'HEADER'],
    ['text behind the object', '{} x', 'HEADER'],
    ['a missing comma', `{"a":${f32('[0,4]')} "b":${f32('[4,8]')}}`, 'HEADER'],
    ['a trailing comma', `{"a":${f32('[0,4]')},}`, 'HEADER'],
    ['a bare key', `{a:${f32('[0,4]')}}`, 'HEADER'],
    ['a name with a control character', `{"a\n":${f32('[0,4]')}}`, 'HEADER'],
    ['a tensor twice', `{"a":${f32('[0,4]')},"a":${f32('[4,8]')}}`, 'HEADER', /a is there twice/],
    ['a tensor twice by escapes', `{"a":${f32('[0,4]')},"\\u0061":${f32('[4,8]')}}`, 'HEADER', /twice/],
    ['metadata twice', `{"__metadata__":{},"__metadata__":{},"a":${f32('[0,8]', '[2]')}}`, 'HEADER', /twice/],
    ['metadata of numbers', `{"__metadata__":{"x":1},"a":${f32('[0,8]', '[2]')}}`, 'HEADER', /__metadata__/],
    ['an entry that is no object', '{"a":3}', 'HEADER'],
    [
      'an entry with a key twice',
      `{"a":{"dtype":"F32","shape":[2],"shape":[2],"data_offsets":[0,8]}}`,
      'HEADER',
      /shape twice/,
    ],
    [
      'an entry with an unknown key',
      `{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"x":1}}`,
      'HEADER',
      /unknown key x/,
    ],
    ['no dtype', `{"a":{"shape":[2],"data_offsets":[0,8]}}`, 'HEADER', /dtype/],
    ['an unknown dtype', `{"a":{"dtype":"F33","shape":[2],"data_offsets":[0,8]}}`, 'DTYPE', /F33.*BF16/],
    ['an inherited dtype', `{"a":{"dtype":"constructor","shape":[2],"data_offsets":[0,8]}}`, 'DTYPE'],
    ['no shape', `{"a":{"dtype":"F32","data_offsets":[0,8]}}`, 'SHAPE'],
    ['a shape that is no list', `{"a":${f32('[0,8]', '2')}}`, 'SHAPE'],
    ['a negative size', `{"a":${f32('[0,8]', '[-2]')}}`, 'SHAPE', /\[-2\]/],
    ['a fraction as size', `{"a":${f32('[0,8]', '[2.5]')}}`, 'SHAPE'],
    ['a string as size', `{"a":${f32('[0,8]', '["2"]')}}`, 'SHAPE'],
    ['a size over 2^53', `{"a":${f32('[0,8]', '[9007199254740993]')}}`, 'SHAPE'],
    ['a product that overflows', `{"a":${f32('[0,8]', '[4294967296,4294967296]')}}`, 'SHAPE', /overflows/],
    [
      'an overflow hidden by a zero',
      `{"a":${f32('[0,0]', '[4294967296,4294967296,0]')},"b":${f32('[0,8]', '[2]')}}`,
      'SHAPE',
      /overflows/,
    ],
    ['no offsets', `{"a":{"dtype":"F32","shape":[2]}}`, 'RANGE'],
    ['three offsets', `{"a":${f32('[0,4,8]', '[2]')}}`, 'RANGE'],
    ['a negative offset', `{"a":${f32('[-4,4]', '[2]')}}`, 'RANGE'],
    ['reversed offsets', `{"a":${f32('[8,0]', '[2]')}}`, 'RANGE', /reversed/],
    ['an offset over the file', `{"a":${f32('[0,12]', '[3]')}}`, 'TRUNCATED'],
    ['an offset over 2^53', `{"a":${f32('[0,99999999999999999999]', '[3]')}}`, 'RANGE'],
    ['too few bytes for the shape', `{"a":${f32('[0,8]', '[3]')}}`, 'RANGE', /takes 12/],
    ['too many bytes for the shape', `{"a":${f32('[0,8]', '[1]')}}`, 'RANGE', /takes 4/],
    ['half a byte', `{"a":{"dtype":"F4","shape":[15],"data_offsets":[0,8]}}`, 'RANGE'],
    ['an overlap', `{"a":${f32('[0,8]', '[2]')},"b":${f32('[4,8]')}}`, 'RANGE', /b .*overlaps tensor a/],
    ['the same bytes twice', `{"a":${f32('[0,8]', '[2]')},"b":${f32('[0,8]', '[2]')}}`, 'RANGE', /overlaps/],
    ['a gap', `{"b":${f32('[4,8]')}}`, 'RANGE', /gap after the header/],
    ['a gap at the end', `{"a":${f32('[0,4]')}}`, 'RANGE', /4 bytes after tensor a/],
  ];
  test.each(cases)('with %s is refused', (_, header, kind, text) =>
    expectCode(parseText(header, 8), `ERR_SAFETENSORS_${kind}`, text),
  );

  test('that is not UTF-8 is refused', async () => {
    const header = Buffer.from('{"?":{}}');
    header[2] = 0xff;
    await expectCode(parse(safetensorsOf(header, 0)), 'ERR_SAFETENSORS_HEADER', /UTF-8/);
  });

  // The seed is in the test's name; a failure replays with it.
  test.each([1, 2, 3, 4])(
    'with random damage (seed %i) ends in a code of its own or in ranges inside the file',
    async (seed) => {
      const next = random(seed);
      const header = good.subarray(8, 8 + Number(good.readBigUInt64LE()));
      const alphabet = Buffer.from('{}[],:"\\ 0123456789-.eEFBabdtshape_offnull\n\u00e9');
      for (let round = 0; round < 1500; round++) {
        let text = Buffer.from(header);
        for (let edits = 1 + Math.floor(next() * 4); edits > 0; edits--) {
          const at = Math.floor(next() * text.length);
          const byte = alphabet.subarray(Math.floor(next() * alphabet.length)).subarray(0, 1);
          const kind = next();
          if (kind < 0.4) text.set(byte, at);
          else if (kind < 0.7) text = Buffer.concat([text.subarray(0, at), byte, text.subarray(at)]);
          else text = Buffer.concat([text.subarray(0, at), text.subarray(at + 1 + Math.floor(next() * 8))]);
        }
        const file = safetensorsOf(text, 40);
        try {
          const { tensors } = await parse(file);
          JSON.parse(text.toString('utf8')); // whatever is taken is JSON
          let bytes = 0;
          for (const tensor of tensors.values()) {
            expect(tensor.offset).toBeGreaterThanOrEqual(8 + text.length);
            expect(tensor.offset + tensor.bytes).toBeLessThanOrEqual(file.length);
            bytes += tensor.bytes;
          }
          expect(bytes).toBe(40);
        } catch (error) {
          if (!OpenLoraError.is(error))
            throw new Error(`${String(error)} for ${text.toString('utf8')}`, { cause: error });
          expect(error.code).toMatch(/^ERR_SAFETENSORS_(HEADER|TRUNCATED|DTYPE|SHAPE|RANGE)$/);
        }
      }
    },
  );
});
