import { open } from 'node:fs/promises';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { canonicalJson, readTopLevelValues } from '../../src/formats/json.js';
import { Pacer } from '../../src/formats/pacer.js';
import { parseSafetensorsHeader, readSafetensorsHeader } from '../../src/formats/safetensors.js';
import { newFolder, safetensorsOf, writeFiles } from '../formats/fixtures.js';
import { byteChanges, coded, holds, withBytes } from './property.js';

const REFUSED = /^ERR_SAFETENSORS_(HEADER|TRUNCATED|DTYPE|SHAPE|RANGE)$/;
const SIZES = { F32: 4, F16: 2, BF16: 2, I64: 8, U8: 1, F8_E4M3: 1 };

interface Tensor {
  name: string;
  dtype: keyof typeof SIZES;
  shape: number[];
}

const tensors: fc.Arbitrary<Tensor[]> = fc.uniqueArray(
  fc.record({
    name: fc.string({ unit: 'grapheme', maxLength: 12 }).filter((name) => name !== '__metadata__'),
    dtype: fc.constantFrom(...(Object.keys(SIZES) as (keyof typeof SIZES)[])),
    shape: fc.array(fc.nat({ max: 6 }), { maxLength: 3 }),
  }),
  { selector: ({ name }) => name, maxLength: 8 },
);
const metadata = fc.option(fc.dictionary(fc.string(), fc.string()), { nil: undefined });

/** A header as a writer makes it, and the bytes of data that it promises. */
function headerOf(list: readonly Tensor[], about: Record<string, string> | undefined): { text: string; end: number } {
  let end = 0;
  const entries = list.map(({ name, dtype, shape }): [string, unknown] => {
    const begin = end;
    end += shape.reduce((product, size) => product * size, SIZES[dtype]);
    return [name, { dtype, shape, data_offsets: [begin, end] }];
  });
  // Not an object: a tensor may be called __proto__.
  const all = about === undefined ? entries : [['__metadata__', about] as [string, unknown], ...entries];
  return { text: `{${all.map(([name, value]) => `${JSON.stringify(name)}:${JSON.stringify(value)}`).join(',')}}`, end };
}

const parse = (header: Buffer, dataBytes: number) =>
  coded(REFUSED, () => parseSafetensorsHeader(header, 8 + header.length + dataBytes, 'x.safetensors', new Pacer()));

describe('the header of a safetensors file', () => {
  test('gives back the table that it was written from', () =>
    holds(fc.tuple(tensors, metadata), async ([list, about]) => {
      const { text, end } = headerOf(list, about);
      const header = Buffer.from(text);
      const read = await parse(header, end);
      let begin = 8 + header.length;
      for (const { name, dtype, shape } of list) {
        const bytes = shape.reduce((product, size) => product * size, SIZES[dtype]);
        expect(read?.tensors.get(name)).toEqual({ name, dtype, shape, offset: begin, bytes });
        begin += bytes;
      }
      expect(read?.tensors.size).toBe(list.length);
      expect({ ...read?.metadata }).toEqual({ ...about });
    }));

  test('is refused by a code, or says what JSON.parse says, whatever bytes change', () =>
    holds(
      fc.tuple(tensors, metadata, byteChanges, fc.integer({ min: -2, max: 2 })),
      async ([list, about, bytes, more]) => {
        const { text, end } = headerOf(list, about);
        const header = withBytes(Buffer.from(text), bytes);
        const dataBytes = Math.max(0, end + more);
        const read = await parse(header, dataBytes);
        if (!read) return;
        const json = JSON.parse(header.toString()) as Record<
          string,
          { dtype: string; shape: number[]; data_offsets: number[] }
        >;
        const named = Object.entries(json).filter(([name]) => name !== '__metadata__');
        expect([...read.tensors.keys()].sort()).toEqual(named.map(([name]) => name).sort());
        for (const [name, { dtype, shape, data_offsets: offsets }] of named) {
          const tensor = read.tensors.get(name)!;
          expect(tensor).toMatchObject({ dtype, shape, offset: 8 + header.length + offsets[0]! });
          expect(tensor.bytes).toBe(offsets[1]! - offsets[0]!);
          expect(tensor.offset + tensor.bytes).toBeLessThanOrEqual(8 + header.length + dataBytes);
        }
        expect([...read.tensors.values()].reduce((sum, tensor) => sum + tensor.bytes, 0)).toBe(dataBytes);
      },
    ));

  test('is refused by a code where it is no such header at all', () =>
    holds(
      fc.oneof(
        fc.uint8Array({ maxLength: 200 }),
        fc.json().map((text) => Buffer.from(text)),
      ),
      (bytes) => parse(Buffer.from(bytes), 0),
    ));

  test('is refused by a code where the file is damaged', async () => {
    const path = join(await newFolder(), 'x.safetensors');
    await holds(fc.tuple(tensors, byteChanges, fc.nat({ max: 40 })), async ([list, bytes, cut]) => {
      const { text, end } = headerOf(list, undefined);
      const whole = safetensorsOf(text, end);
      // The length's eight bytes more often than the rest.
      const damaged = withBytes(
        whole,
        bytes.map((one) => ({ ...one, at: one.at % 2 ? one.at : one.at % 8 })),
      );
      const file = await open(path, 'w');
      await file.writeFile(damaged.subarray(0, Math.max(0, damaged.length - (cut > 20 ? cut - 20 : 0))));
      await file.close();
      await coded(REFUSED, () => readSafetensorsHeader(path, new Pacer()));
    });
  });
});

describe('JSON', () => {
  const plain = fc.jsonValue({ stringUnit: 'grapheme' });

  test('in canonical form is the same value, and canonical form again', () =>
    holds(plain, (value) => {
      const text = canonicalJson(value);
      expect(JSON.parse(text)).toEqual(JSON.parse(JSON.stringify(value)));
      expect(canonicalJson(JSON.parse(text))).toBe(text);
    }));

  test('of a huge file gives the same top-level values as JSON.parse', async () => {
    const folder = await newFolder();
    const object = fc.dictionary(fc.constantFrom('a', 'b', 'model', 'added_tokens', '"', '\\', 'é'), plain);
    // Long enough that values go over the ends of what is read at once, 64 KiB.
    await holds(fc.tuple(object, fc.nat({ max: 3 }), fc.boolean()), async ([value, longs, isSpaced]) => {
      const all = { pad: 'x'.repeat(longs * 32_750), ...value };
      await writeFiles(folder, { 'huge.json': JSON.stringify(all, null, isSpaced ? 1 : 0) });
      const keys = ['a', 'model', 'added_tokens', 'é'];
      const found = await readTopLevelValues(join(folder, 'huge.json'), keys, 'ERR_X', new Pacer());
      const wanted = JSON.parse(JSON.stringify(all)) as Record<string, unknown>;
      expect(Object.fromEntries(found!)).toEqual(
        Object.fromEntries(keys.filter((key) => Object.hasOwn(wanted, key)).map((key) => [key, wanted[key]])),
      );
    });
  });

  test('of a huge file is refused by a code where it is damaged', async () => {
    const folder = await newFolder();
    const text = Buffer.from(JSON.stringify({ model: { a: [1, 'x"'] }, added_tokens: [{ id: 1 }], b: '\\' }));
    await holds(byteChanges, async (bytes) => {
      await writeFiles(folder, { 'huge.json': withBytes(text, bytes) });
      await coded(/^ERR_X$/, () =>
        readTopLevelValues(join(folder, 'huge.json'), ['added_tokens'], 'ERR_X', new Pacer()),
      );
    });
  });
});
