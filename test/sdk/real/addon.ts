import { loadNative } from '../../../src/native/load.js';

/** Why the real addon can't be used here; undefined if it can. */
export const noAddon: string | undefined = (() => {
  try {
    loadNative();
    return undefined;
  } catch (error) {
    return (error as Error).message;
  }
})();
