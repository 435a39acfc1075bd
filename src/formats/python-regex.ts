// Python's `re` as far as PEFT configs need it: does a pattern match a whole module name? Not translated to RegExp:
// a pattern such as `(a+)+b` in an uploaded adapter would hold the JS thread for hours, and the two languages differ
// in small ways (`[]a]`, `{,3}`, `(?P<n>…)`, inline flags). The pattern becomes a Thompson program; a run visits each
// (instruction, position) once, so its time is bounded by their product (Cox 2010, "Regular Expression Matching in the
// Wild", bit-state). Module names are ASCII without line ends: `$` and `\Z`, `.` and DOTALL, mean the same for them.
//
// Refused, as no linear-time matcher has them or Python's meaning differs between versions: back-references,
// conditionals, atomic groups, possessive quantifiers, VERBOSE, LOCALE, \N{…}.

import { OpenLoraError } from '../errors.js';

/** Of a compiled pattern, after `{m,n}` is written out. */
const INSTRUCTIONS_MAX = 4_000;
/** Of one match: an instruction at a position. A name of 60 characters against the longest program takes half of it. */
const STEPS_MAX = 500_000;
/** Of groups inside one another. */
const DEPTH_MAX = 100;

type CharTest = (code: number) => boolean;
type Assertion = 'begin' | 'end' | 'word' | 'not-word';
type Node =
  | { kind: 'char'; test: CharTest }
  | { kind: 'sequence'; nodes: Node[] }
  | { kind: 'either'; nodes: Node[] }
  | { kind: 'repeat'; node: Node; min: number; max: number }
  | { kind: 'assert'; what: Assertion }
  | { kind: 'look'; node: Node; isNegated: boolean; behind: number };

type Instruction =
  | { op: 'char'; test: CharTest }
  | { op: 'split'; first: number; second: number }
  | { op: 'assert'; what: Assertion }
  | { op: 'look'; begin: number; after: number; isNegated: boolean; behind: number }
  | { op: 'match' };

/** A compiled pattern. */
export class PythonRegex {
  private readonly program: Instruction[] = [];
  private nodesEmitted = 0;

  /** Throws ERR_ADAPTER_PATTERN for what Python refuses or this matcher doesn't have. */
  constructor(readonly pattern: string) {
    this.emit(new Parser(pattern).parse());
    this.program.push({ op: 'match' });
  }

  /** `re.fullmatch(pattern, text) is not None`. */
  fullMatch(text: string): boolean {
    return this.run(0, this.program.length, text, 0, text.length, { steps: 0 });
  }

  /** Whether the instructions [begin, end) match from `from` on: up to `to`, or, where that is -1, to anywhere. */
  private run(begin: number, end: number, text: string, from: number, to: number, budget: { steps: number }): boolean {
    const width = text.length + 1;
    const first = begin * width;
    const seen = new Uint8Array(end * width - first);
    budget.steps += seen.length >> 6; // clearing it takes time, too
    const stack = [first + from];
    for (let state = stack.pop(); state !== undefined; state = stack.pop()) {
      if (seen[state - first]) continue;
      seen[state - first] = 1;
      if (++budget.steps > STEPS_MAX) throw patternError(this.pattern, 'takes too long to match');
      const at = state % width;
      const index = (state - at) / width;
      const instruction = this.program[index]!;
      switch (instruction.op) {
        case 'char':
          if (at < text.length && instruction.test(text.charCodeAt(at))) stack.push(state + width + 1);
          break;
        case 'split':
          stack.push(instruction.second * width + at, instruction.first * width + at);
          break;
        case 'assert':
          if (holds(instruction.what, text, at)) stack.push(state + width);
          break;
        case 'look': {
          const start = at - instruction.behind;
          const stop = instruction.behind > 0 ? at : -1;
          const { begin: lookBegin, after, isNegated } = instruction;
          const isThere = start >= 0 && this.run(lookBegin, after, text, start, stop, budget);
          if (isThere !== isNegated) stack.push(after * width + at);
          break;
        }
        case 'match':
          if (to === -1 || at === to) return true;
      }
    }
    return false;
  }

  private emit(node: Node): void {
    const { program } = this;
    // Nodes count as well: `(?:){9999}` emits none.
    if (program.length > INSTRUCTIONS_MAX || ++this.nodesEmitted > 4 * INSTRUCTIONS_MAX)
      throw patternError(this.pattern, 'is too large');
    switch (node.kind) {
      case 'char':
        program.push({ op: 'char', test: node.test });
        return;
      case 'assert':
        program.push({ op: 'assert', what: node.what });
        return;
      case 'sequence':
        for (const part of node.nodes) this.emit(part);
        return;
      case 'either':
        this.emitEither(node.nodes);
        return;
      case 'repeat':
        for (let i = 0; i < node.min; i++) this.emit(node.node);
        if (node.max === Infinity) this.emitLoop(node.node);
        else this.emitOptional(node.node, node.max - node.min);
        return;
      case 'look': {
        const look = {
          op: 'look' as const,
          begin: program.length + 1,
          after: 0,
          isNegated: node.isNegated,
          behind: node.behind,
        };
        program.push(look);
        this.emit(node.node);
        program.push({ op: 'match' });
        look.after = program.length;
      }
    }
  }

  private emitEither(nodes: Node[]): void {
    const jumps: { first: number; second: number }[] = [];
    nodes.forEach((node, i) => {
      const isLast = i === nodes.length - 1;
      const split = isLast ? undefined : this.emitSplit();
      this.emit(node);
      if (!split) return;
      jumps.push(this.emitSplit()); // a jump: both ways lead to the end
      split.second = this.program.length;
    });
    for (const jump of jumps) jump.first = jump.second = this.program.length;
  }

  private emitLoop(node: Node): void {
    const begin = this.program.length;
    const split = this.emitSplit();
    this.emit(node);
    const back = this.emitSplit();
    back.first = back.second = begin;
    split.second = this.program.length;
  }

  private emitOptional(node: Node, times: number): void {
    const splits: { second: number }[] = [];
    for (let i = 0; i < times; i++) {
      splits.push(this.emitSplit());
      this.emit(node);
    }
    for (const split of splits) split.second = this.program.length;
  }

  private emitSplit() {
    const split = { op: 'split' as const, first: this.program.length + 1, second: 0 };
    this.program.push(split);
    return split;
  }
}

function holds(what: Assertion, text: string, at: number): boolean {
  if (what === 'begin') return at === 0;
  if (what === 'end') return at === text.length;
  const before = at > 0 && isWord(text.charCodeAt(at - 1));
  const after = at < text.length && isWord(text.charCodeAt(at));
  return (before !== after) === (what === 'word');
}

const isDigit: CharTest = (c) => c >= 48 && c <= 57;
const isLetter: CharTest = (c) => (c >= 65 && c <= 90) || (c >= 97 && c <= 122);
const isWord: CharTest = (c) => isDigit(c) || isLetter(c) || c === 95;
const isSpace: CharTest = (c) => c === 32 || (c >= 9 && c <= 13) || (c >= 28 && c <= 31);
const not =
  (test: CharTest): CharTest =>
  (c) =>
    !test(c);
const CLASSES: Readonly<Record<string, CharTest>> = {
  d: isDigit,
  D: not(isDigit),
  w: isWord,
  W: not(isWord),
  s: isSpace,
  S: not(isSpace),
};
const CONTROLS: Readonly<Record<string, number>> = { a: 7, b: 8, t: 9, n: 10, v: 11, f: 12, r: 13 };

const lower = (c: number) => (c >= 65 && c <= 90 ? c + 32 : c);
const upper = (c: number) => (c >= 97 && c <= 122 ? c - 32 : c);
const ignoringCase =
  (test: CharTest): CharTest =>
  (c) =>
    test(lower(c)) || test(upper(c));

/** Recursive descent over Python's syntax, after CPython's re/_parser.py. */
class Parser {
  private at = 0;
  private depth = 0;
  private isCaseIgnored = false;
  private readonly names = new Set<string>();

  constructor(private readonly pattern: string) {}

  parse(): Node {
    const flags = /^\(\?([a-zA-Z]+)\)/.exec(this.pattern);
    if (flags) {
      this.setFlags(flags[1]!, true);
      this.at = flags[0].length;
    }
    const node = this.alternation();
    if (this.at < this.pattern.length) throw this.fail('has an unbalanced )');
    return node;
  }

  private alternation(): Node {
    if (++this.depth > DEPTH_MAX) throw this.fail('is nested too deeply');
    const nodes = [this.sequence()];
    while (this.take('|')) nodes.push(this.sequence());
    this.depth--;
    return nodes.length === 1 ? nodes[0]! : { kind: 'either', nodes };
  }

  private sequence(): Node {
    const nodes: Node[] = [];
    while (this.at < this.pattern.length && !this.sees('|') && !this.sees(')')) {
      const node = this.atom();
      if (node) nodes.push(this.quantified(node));
    }
    return { kind: 'sequence', nodes };
  }

  private quantified(node: Node): Node {
    const bounds = this.quantifier();
    if (!bounds) return node;
    if (node.kind === 'assert') throw this.fail('repeats an assertion');
    if (this.take('+')) throw this.fail('has a possessive quantifier, which is not supported');
    this.take('?'); // lazy: which match is found makes no difference to whether there is one
    if (this.quantifier()) throw this.fail('has a quantifier after a quantifier');
    return { kind: 'repeat', node, ...bounds };
  }

  private quantifier(): { min: number; max: number } | undefined {
    if (this.take('*')) return { min: 0, max: Infinity };
    if (this.take('+')) return { min: 1, max: Infinity };
    if (this.take('?')) return { min: 0, max: 1 };
    // Anything else after a brace is literal text. `{,n}` counts from 0.
    const counted = /^\{(\d*)(,?)(\d*)\}/.exec(this.pattern.slice(this.at, this.at + 24));
    if (!counted || (counted[1] === '' && counted[2] === '')) return undefined;
    this.at += counted[0].length;
    const min = Number(counted[1]);
    const max = counted[2] === '' ? min : counted[3] === '' ? Infinity : Number(counted[3]);
    if (max < min) throw this.fail('repeats at least more often than at most');
    return { min, max };
  }

  private atom(): Node | undefined {
    const c = this.next();
    switch (c) {
      case '(':
        return this.group();
      case '[':
        return this.char(this.charClass());
      case '\\':
        return this.escape();
      case '.':
        return { kind: 'char', test: (code) => code !== 10 };
      case '^':
        return { kind: 'assert', what: 'begin' };
      case '$':
        return { kind: 'assert', what: 'end' };
      case '*':
      case '+':
      case '?':
        throw this.fail(`has nothing to repeat before ${c}`);
      default:
        return this.char(is(c.charCodeAt(0)));
    }
  }

  private char(test: CharTest): Node {
    return { kind: 'char', test: this.isCaseIgnored ? ignoringCase(test) : test };
  }

  private group(): Node | undefined {
    if (!this.take('?')) return this.closed(this.alternation());
    if (this.take(':')) return this.closed(this.alternation());
    if (this.take('=')) return this.look(false, false);
    if (this.take('!')) return this.look(false, true);
    if (this.take('<=')) return this.look(true, false);
    if (this.take('<!')) return this.look(true, true);
    if (this.take('#')) {
      const end = this.pattern.indexOf(')', this.at);
      if (end < 0) throw this.fail('has a comment without end');
      this.at = end + 1;
      return undefined;
    }
    const rest = this.pattern.slice(this.at, this.at + 64);
    const name = /^P<[A-Za-z_]\w*>/.exec(rest);
    if (name) {
      if (this.names.has(name[0])) throw this.fail('has two groups of one name');
      this.names.add(name[0]);
      this.at += name[0].length;
      return this.closed(this.alternation());
    }
    const flags = /^([a-zA-Z]*)(?:-([a-zA-Z]+))?:/.exec(rest);
    if (!flags) throw this.fail(`has a group (?${rest.slice(0, 2)} which is not supported`);
    this.at += flags[0].length;
    const before = this.isCaseIgnored;
    this.setFlags(flags[1]!, true);
    this.setFlags(flags[2] ?? '', false);
    const node = this.closed(this.alternation());
    this.isCaseIgnored = before;
    return node;
  }

  private look(isBehind: boolean, isNegated: boolean): Node {
    const node = this.closed(this.alternation());
    if (!isBehind) return { kind: 'look', node, isNegated, behind: 0 };
    const [behind, most] = widthOf(node);
    if (behind !== most) throw this.fail('has a look-behind without a fixed width');
    return { kind: 'look', node, isNegated, behind };
  }

  private closed(node: Node): Node {
    if (!this.take(')')) throw this.fail('has an unclosed group');
    return node;
  }

  private setFlags(flags: string, isOn: boolean): void {
    for (const flag of flags) {
      if (flag === 'i') this.isCaseIgnored = isOn;
      else if (!'smua'.includes(flag)) throw this.fail(`has the flag ${flag}, which is not supported`);
    }
  }

  private escape(): Node {
    const c = this.next();
    if (c === 'A') return { kind: 'assert', what: 'begin' };
    if (c === 'Z') return { kind: 'assert', what: 'end' };
    if (c === 'b') return { kind: 'assert', what: 'word' };
    if (c === 'B') return { kind: 'assert', what: 'not-word' };
    if (c >= '1' && c <= '9') throw this.fail('has a back-reference, which is not supported');
    return this.char(CLASSES[c] ?? is(this.escapedCode(c)));
  }

  private escapedCode(c: string): number {
    if (c === 'x' || c === 'u') {
      const digits = this.pattern.slice(this.at, this.at + (c === 'x' ? 2 : 4));
      if (digits.length !== (c === 'x' ? 2 : 4) || !/^[0-9a-fA-F]+$/.test(digits))
        throw this.fail(`has an incomplete \\${c}`);
      this.at += digits.length;
      return parseInt(digits, 16);
    }
    if (CONTROLS[c] !== undefined) return CONTROLS[c];
    if (isDigit(c.charCodeAt(0)) || isLetter(c.charCodeAt(0)))
      throw this.fail(`has the escape \\${c}, which is not supported`);
    return c.charCodeAt(0);
  }

  private charClass(): CharTest {
    const isNegated = this.take('^');
    const tests: CharTest[] = [];
    do {
      const first = this.classItem();
      if (typeof first === 'number' && this.sees('-') && this.pattern[this.at + 1] !== ']') {
        this.at++;
        const last = this.classItem();
        if (typeof last !== 'number' || last < first) throw this.fail('has a reversed range');
        tests.push((code) => code >= first && code <= last);
      } else {
        tests.push(typeof first === 'number' ? is(first) : first);
      }
    } while (!this.take(']')); // a first ] is literal
    const test: CharTest = (code) => tests.some((one) => one(code));
    // Case is ignored before the negation, not after it.
    const cased = this.isCaseIgnored ? ignoringCase(test) : test;
    return isNegated ? (code) => !cased(code) : cased;
  }

  private classItem(): number | CharTest {
    const c = this.next();
    if (c !== '\\') return c.charCodeAt(0);
    const escaped = this.next();
    return CLASSES[escaped] ?? this.escapedCode(escaped);
  }

  private next(): string {
    const c = this.pattern[this.at++];
    if (c === undefined) throw this.fail('ends too early');
    return c;
  }

  private sees(text: string): boolean {
    return this.pattern.startsWith(text, this.at);
  }

  private take(text: string): boolean {
    if (!this.sees(text)) return false;
    this.at += text.length;
    return true;
  }

  private fail(what: string): OpenLoraError {
    return patternError(this.pattern, what);
  }
}

const is =
  (wanted: number): CharTest =>
  (code) =>
    code === wanted;

/** The fewest and the most characters that a node takes. */
function widthOf(node: Node): [least: number, most: number] {
  switch (node.kind) {
    case 'char':
      return [1, 1];
    case 'assert':
    case 'look':
      return [0, 0];
    case 'repeat': {
      const [least, most] = widthOf(node.node);
      return [least * node.min, most === 0 || node.max === 0 ? 0 : most * node.max];
    }
    case 'sequence':
      return node.nodes.map(widthOf).reduce(([x, y], [least, most]) => [x + least, y + most], [0, 0]);
    case 'either': {
      const widths = node.nodes.map(widthOf);
      return [Math.min(...widths.map(([least]) => least)), Math.max(...widths.map(([, most]) => most))];
    }
  }
}

function patternError(pattern: string, what: string): OpenLoraError {
  const shown = pattern.length > 100 ? `${pattern.slice(0, 97)}...` : pattern;
  return new OpenLoraError('ERR_ADAPTER_PATTERN', `the pattern ${JSON.stringify(shown)} ${what}`, { pattern });
}
