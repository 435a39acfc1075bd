import { readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

export const root = fileURLToPath(new URL('..', import.meta.url));

const notOurs = new Set(['node_modules', 'build', 'dist', 'variants', '.git', '.cache']);

/** Paths below the repository's `folder` whose names match `pattern`, sorted; nothing if the folder is missing. */
export function filesUnder(folder, pattern) {
  const found = [];
  const visit = (path) => {
    let entries;
    try {
      entries = readdirSync(`${root}/${path}`, { withFileTypes: true });
    } catch {
      return;
    }
    for (const entry of entries) {
      const inner = `${path}/${entry.name}`;
      if (entry.isDirectory()) {
        if (!notOurs.has(entry.name)) visit(inner);
      } else if (pattern.test(entry.name)) {
        found.push(inner);
      }
    }
  };
  visit(folder);
  return found.sort();
}
