import { join } from 'node:path';
import { demo } from './answers.cjs';

process.env.OPENLORA_BACKEND = 'cuda12';
const { loadBase } = await import('openlora');
try {
  await loadBase({ path: join(demo, 'base') });
  console.log('loaded');
} catch (error) {
  console.log(error.code);
}
