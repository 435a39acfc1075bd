// Oniguruma's possessive quantifiers (`a++`, `a*+`, `a?+`) and atomic groups (`(?>a)`) for JS, which has neither: they are
// matched in a lookahead, which gives nothing back, and then taken by a backreference. (`a{1,3}+` is no possessive in
// Oniguruma's Ruby syntax, but a repetition.) All else of the pattern is left to @huggingface/tokenizers.

/** The end of the class that begins at `start`; classes nest, and a `]` in front is itself. */
function endOfClass(pattern: string, start: number): number {
  let i = start + 1;
  if (pattern[i] === '^') i++;
  if (pattern[i] === ']') i++;
  while (i < pattern.length && pattern[i] !== ']') {
    if (pattern[i] === '\\') i += 2;
    else if (pattern[i] === '[') i = pattern[i + 1] === ':' ? pattern.indexOf(':]', i) + 2 : endOfClass(pattern, i);
    else i++;
  }
  return i + 1;
}

/** The end of what begins at `start` and is no group and no quantifier: a character, an escape or a class. */
function endOfAtom(pattern: string, start: number): number {
  if (pattern[start] === '[') return endOfClass(pattern, start);
  if (pattern[start] !== '\\') return start + String.fromCodePoint(pattern.codePointAt(start) ?? 0).length;
  const braced = /^\\(?:[pPx]\{[^}]*\}|x[0-9A-Fa-f]{1,2}|u[0-9A-Fa-f]{4}|[\s\S])/.exec(
    pattern.slice(start, start + 99),
  );
  return start + (braced?.[0].length ?? 1);
}

export function withoutPossessives(pattern: string): string {
  let out = '';
  let atom = -1; // where in `out` begins what a quantifier would repeat
  let names = 0;
  const groups: { start: number; isAtomic: boolean }[] = [];
  const keep = (from: number): void => {
    const name = `keep${names++}`;
    out = `${out.slice(0, from)}(?=(?<${name}>${out.slice(from)}))\\k<${name}>`;
  };
  for (let i = 0; i < pattern.length;) {
    const character = pattern[i] ?? '';
    if (character === '(') {
      const isAtomic = pattern.startsWith('(?>', i);
      groups.push({ start: out.length, isAtomic });
      const opening = isAtomic
        ? '(?>'
        : (/^\((?:\?(?:<[=!]|<\w+>|[a-z-]*:|[=!]))?/.exec(pattern.slice(i, i + 64))?.[0] ?? '(');
      out += isAtomic ? '(?:' : opening;
      i += opening.length;
      atom = -1;
    } else if (character === ')') {
      const group = groups.pop();
      out += ')';
      i++;
      atom = group?.start ?? -1;
      if (group?.isAtomic) {
        // One group, so that a quantifier behind it repeats all of it.
        keep(group.start);
        out = `${out.slice(0, group.start)}(?:${out.slice(group.start)})`;
      }
    } else if (character === '|') {
      out += character;
      i++;
      atom = -1;
    } else if (atom >= 0 && '*+?'.includes(character)) {
      const isPossessive = pattern[i + 1] === '+';
      const isLazy = pattern[i + 1] === '?';
      out += isLazy ? `${character}?` : character;
      i += isPossessive || isLazy ? 2 : 1;
      if (isPossessive) keep(atom);
      atom = -1;
    } else {
      const end = endOfAtom(pattern, i);
      const isRepetition = atom >= 0 && character === '{' && /^\{\d*,?\d*\}/.test(pattern.slice(i, i + 16));
      const start = isRepetition ? atom : out.length;
      const stop = isRepetition ? pattern.indexOf('}', i) + 1 : end;
      out += pattern.slice(i, stop);
      i = stop;
      atom = start;
    }
  }
  return out;
}
