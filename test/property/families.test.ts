// The configs of every family that test/parity has, changed at random: a model that C++ can take, or a refusal by a code.

import { readdirSync, readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { ConfigReader } from '../../src/formats/config-reader.js';
import { FAMILIES, findFamily } from '../../src/formats/families/index.js';
import type { FamilyModel } from '../../src/formats/families/family.js';
import type { JsonObject } from '../../src/formats/json.js';
import { changed, changes, coded, holds, oddValue } from './property.js';
import { expectSoundSpec } from './sound.js';

const folder = new URL('../data/parity/', import.meta.url);
const configs = readdirSync(folder).map(
  (name) => JSON.parse(readFileSync(new URL(`${name}/config.json`, folder), 'utf8')) as JsonObject,
);

/** Numbers at the edges of float32 and of the counts, which chance seldom finds. */
const edge = fc.constantFrom<unknown>(
  ...[1e-90, 1e-45, 1e-38, 1e38, 1e39, 1e200, -1e200, 63.5, 0.5, 1, 2, 1 << 24, (1 << 24) + 1, 1e9, null, true, false],
  ...['linear', 'dynamic', 'yarn', 'llama3', 'longrope', 'su', 'default', [1, 0], ['sliding_attention']],
);

function readModel(object: unknown): FamilyModel {
  const config = new ConfigReader(object as JsonObject, 'config.json', 'ERR_BASE_CONFIG');
  return findFamily(config).read(config);
}

async function check(object: unknown): Promise<void> {
  if (typeof object !== 'object' || object === null || Array.isArray(object)) return; // refused before any family
  const model = await coded(/^ERR_BASE_(CONFIG|ARCHITECTURE|UNSUPPORTED|ROPE)$/, () => readModel(object));
  if (!model) return;
  expectSoundSpec(model.spec);
  for (const { shape } of model.tensors.values())
    expect(shape.every((size) => Number.isSafeInteger(size) && size >= 1)).toBe(true);
}

/** `object` with the values of some of its keys, and of those of the objects in it, replaced. */
function withEdges(object: JsonObject, list: readonly { at: number; value: unknown }[]): JsonObject {
  const root: Record<string, unknown> = structuredClone(object);
  for (const { at, value } of list) {
    const places = [root, root.rope_parameters, root.rope_scaling]
      .filter((holder): holder is Record<string, unknown> => typeof holder === 'object' && holder !== null)
      .flatMap((holder) => Object.keys(holder).map((key) => [holder, key] as const));
    const [holder, key] = places[at % places.length]!;
    holder[key] = structuredClone(value);
  }
  return root;
}

describe("a family's config is read or refused by a code", () => {
  test('and each is among the examples, which are read', () => {
    const names = configs.map((object) => findFamily(new ConfigReader(object, '', 'ERR_BASE_CONFIG')).name);
    expect(new Set(names)).toEqual(new Set(FAMILIES.map(({ name }) => name)));
    for (const object of configs) expectSoundSpec(readModel(object).spec);
  });

  test('whatever in it changes', () =>
    holds(fc.tuple(fc.constantFrom(...configs), changes), ([object, list]) =>
      check(JSON.parse(changed(object, list))),
    ));

  test('whatever numbers and names it has', () => {
    const one = fc.record({ at: fc.nat(), value: fc.oneof({ weight: 3, arbitrary: edge }, oddValue) });
    return holds(
      fc.tuple(fc.constantFrom(...configs), fc.array(one, { minLength: 1, maxLength: 3 })),
      ([object, list]) => check(withEdges(object, list)),
      600,
    );
  });
});
