import openlora = require('openlora');

export async function tokens(): Promise<number[]> {
  const base: openlora.Base = await openlora.loadBase({ path: 'base' });
  const { tokens } = await base.generate({ tokens: [1, 2, 3], temperature: 0 }).result;
  return tokens;
}
