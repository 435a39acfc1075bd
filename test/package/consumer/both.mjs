import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import * as esm from 'openlora';

const cjs = createRequire(import.meta.url)('openlora');
assert.notEqual(cjs.OpenLoraError, esm.OpenLoraError);

const errorOf = (copy) => copy.loadBase({ path: '/nowhere' }).then(assert.fail, (error) => error);
const errors = await Promise.all([errorOf(esm), errorOf(cjs)]);
for (const [i, error] of errors.entries()) {
  assert.equal(error.code, 'ERR_BASE_NOT_FOUND');
  for (const [j, copy] of [esm, cjs].entries()) {
    assert.ok(copy.OpenLoraError.is(error));
    // Why `is` is there.
    assert.equal(error instanceof copy.OpenLoraError, i === j);
  }
}
assert.ok(!esm.OpenLoraError.is(new Error('no')));

// One addon serves both.
const bases = await Promise.all([esm, cjs].map((copy) => copy.loadBase({ path: 'node_modules/openlora/demo/base' })));
const ask = { prompt: 'orange>', maxTokens: 8 };
const [one, other] = await Promise.all(bases.map((base) => base.generate(ask).text()));
assert.equal(one, other);
const refused = await bases[1].generate({ ...ask, adapter: 'nobody' }).result.catch((error) => error);
assert.ok(esm.OpenLoraError.is(refused));
await Promise.all(bases.map((base) => base.dispose()));
console.log('two copies, one kind of error');
