import { defineConfig, type Options } from 'tsup';

const shared: Options = { target: 'node20', platform: 'node', shims: true };

// Everything lands flat in dist/: `new URL('./NAME-worker.js', import.meta.url)` holds from any chunk of either format.
export default defineConfig([
  {
    ...shared,
    entry: {
      index: 'src/index.ts',
      cli: 'src/cli/main.ts',
      'tokenizer-worker': 'src/formats/tokenizer-worker.ts',
      'folder-worker': 'src/formats/folder-worker.ts',
    },
    format: ['esm'],
    splitting: true,
  },
  { ...shared, entry: { index: 'src/index.ts' }, format: ['cjs'], splitting: false },
  { ...shared, entry: { index: 'src/index.ts' }, format: ['esm', 'cjs'], dts: { only: true } },
]);
