// Ids that become part of a path or of an object's key.

/**
 * The parts of an id that is a relative name, `a` or `a/b`; undefined for one that could mean anything else: absolute, with
 * `..`, `.` or empty parts, backslashes, or control characters.
 */
export function partsOfName(id: string): string[] | undefined {
  // eslint-disable-next-line no-control-regex
  if (/[\\\u0000-\u001f\u007f]/.test(id)) return undefined;
  const parts = id.split('/');
  return parts.every((part) => part !== '' && part !== '.' && part !== '..') ? parts : undefined;
}
