import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { readAdapterFolder } from '../../src/formats/adapter-folder.js';
import { readBaseFolder } from '../../src/formats/base-folder.js';
import { FOLDER_WORKER, type FolderRequests } from '../../src/formats/folder-protocol.js';
import { openFolderReader, type FolderReader } from '../../src/formats/folder-reader.js';
import type { BaseFolder } from '../../src/formats/types.js';
import { WorkerClient } from '../../src/formats/worker-client.js';
import { adapterFolder, baseFolder, expectCode, loraTensors, QV, TINY } from './fixtures.js';

let direct: BaseFolder;
let reader: FolderReader;
beforeAll(async () => {
  direct = await readBaseFolder(await baseFolder({ ...TINY, _name_or_path: 'test/tiny' }));
  reader = await openFolderReader(direct.path);
});
afterAll(() => reader.dispose());

const rules = (controller = new AbortController()) => ({
  strictBase: false,
  vocabulary: TINY.vocab_size,
  signal: controller.signal,
});

/** Rows of a table of eight columns. */
const rowsOf = (table: Float64Array) =>
  Array.from({ length: table.length / 8 }, (_, i) => [...table.subarray(i * 8, i * 8 + 8)]);

describe('the thread that reads folders', () => {
  test('describes a base as reading it does, with its tensors in a table', () => {
    const { tensors, modules: _, linearModules: __, config: ___, ...rest } = direct;
    const { tensors: table, ...described } = reader.base;
    expect(described).toEqual(rest);
    const rows = rowsOf(table);
    expect(rows).toHaveLength(tensors.length);
    rows.forEach((row, i) => {
      const { layer, file, offset, bytes, rows: height, cols } = tensors[i]!;
      expect([row[1], ...row.slice(2, 5), ...row.slice(6)]).toEqual([layer, file, offset, bytes, height, cols]);
      expect(row[5]).toBe(0); // f32
    });
    // As WeightRole counts: the embedding, the final norm, the first and the last linear module of a layer.
    const numbers = new Map(tensors.map(({ role }, i) => [role, rows[i]![0]]));
    const known = ['embed_tokens', 'final_norm', 'attn_norm', 'q_proj', 'down_proj'] as const;
    expect(known.map((role) => numbers.get(role))).toEqual([0, 2, 3, 9, 15]);
  });

  test('checks an adapter as reading it does, with its tensors and sites in tables', async () => {
    const name = 'base_model.model.model.layers.1.self_attn.v_proj.base_layer.weight';
    const tensors = { ...loraTensors(QV, 'BF16'), [name]: { dtype: 'F16', shape: [8, 16] } };
    const path = await adapterFolder({}, tensors);
    const { spec, info } = await readAdapterFolder(path, direct);
    const read = await reader.readAdapter(path, rules());
    expect(read.info).toEqual(info);
    expect(read.spec.files).toEqual(spec.files);
    expect(Buffer.from(read.spec.canonicalConfig)).toEqual(Buffer.from(spec.canonicalConfig));
    expect([...read.spec.sites]).toEqual(spec.sites.flatMap(({ site, rank, scale }) => [site, rank, scale]));
    expect(rowsOf(read.spec.tensors)).toEqual(
      spec.tensors.map(({ site, matrix, file, offset, bytes, rows, cols }) => [
        site, matrix === 'A' ? 0 : 1, file, offset, bytes, 2, rows, cols,
      ]), // prettier-ignore
    );
    const [saved] = spec.baseTensors;
    expect(rowsOf(read.spec.baseTensors)).toEqual([[11, 1, 0, saved!.offset, saved!.bytes, 1, 8, 16]]);
    expect(read.spec.baseTensorNames).toEqual([name]);
  });

  test('answers many at once, each with its own', async () => {
    const ranks = Array.from({ length: 12 }, (_, i) => i + 1);
    const module = 'model.layers.0.self_attn.q_proj';
    const paths = await Promise.all(
      ranks.map((r) => adapterFolder({ r, target_modules: [module] }, loraTensors({ [module]: r }))),
    );
    const read = await Promise.all(paths.map((path) => reader.readAdapter(path, rules())));
    expect(read.map(({ info }) => info.rank.max)).toEqual(ranks);
  });

  test('refuses with the code, the details and the cause that reading refuses with', async () => {
    const missing = `${direct.path}/no-such-folder`;
    await expect(reader.readAdapter(missing, rules())).rejects.toMatchObject({
      code: 'ERR_ADAPTER_FILES',
      message: `${missing} is not a folder`,
      details: { path: missing },
      cause: { message: expect.stringContaining('ENOENT') },
    });
    await expectCode(openFolderReader(missing), 'ERR_BASE_NOT_FOUND', missing);
  });

  test('drops what is aborted, and reads on', async () => {
    const path = await adapterFolder();
    const controller = new AbortController();
    const reading = reader.readAdapter(path, rules(controller));
    controller.abort(new Error('enough'));
    await expect(reading).rejects.toMatchObject({ code: 'ERR_ABORTED', cause: { message: 'enough' } });
    expect((await reader.readAdapter(path, rules())).info.rank).toEqual({ min: 4, max: 4 });
  });

  test('that takes the place of a dead one reads the base before it is asked of adapters', async () => {
    const client = new WorkerClient<FolderRequests>(FOLDER_WORKER, { path: direct.path });
    const path = await adapterFolder();
    const request = { path, strictBase: false, vocabulary: TINY.vocab_size };
    // Not opened: as it is after the first thread's death.
    expect((await client.request('readAdapter', request)).info.sites).toHaveLength(4);
    await client.close();
  });

  test('answers ERR_CLOSED after dispose, to what was under way too', async () => {
    const other = await openFolderReader(direct.path);
    const path = await adapterFolder();
    const reading = other.readAdapter(path, rules());
    await Promise.all([expectCode(reading, 'ERR_CLOSED'), other.dispose()]);
    await expectCode(other.readAdapter(path, rules()), 'ERR_CLOSED', 'the reader of folders was disposed');
  });
});
