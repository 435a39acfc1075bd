// Renders a parsed template with Jinja2's meaning, as transformers sets it up: no autoescape, break and continue, Python's
// values. @huggingface/jinja's own interpreter gives JS's meaning in places that real templates reach: `'' == false`, `none`
// and `true` as text, scopes that leak from one loop round to the next, output lost at `break`, `lstrip` that ignores its
// argument, members before methods. There it is silently wrong; here a template renders as in Python, or throws.

import { spend, spendFor, withBudget } from './chat-template-budget.js';
import type { CallBlock, Expression, For, Parameter, SetStatement, Slice, Statement } from './chat-template-ast.js';
import { isIn, makeFilters, testOf } from './chat-template-filters.js';
import { methodOf } from './chat-template-methods.js';
import {
  Attributes,
  type Callable,
  Float,
  type Kwargs,
  TemplateError,
  Tuple,
  type Value,
  compare,
  isDict,
  isEqual,
  isTrue,
  iterate,
  numberOf,
  toText,
  typeName,
} from './chat-template-value.js';

/** Characters of one text. */
const TEXT_MAX = 1 << 24;
/** Tests for a body are many where a macro is called often, and a body may be large. */
const TAKES_MORE = new WeakMap<Statement[], boolean>();
const RANGE_MAX = 100_000; // Jinja2's sandbox has the same

class Scope {
  readonly #names = new Map<string, Value>();
  constructor(readonly parent?: Scope) {}

  get(name: string): Value {
    if (this.#names.has(name)) return this.#names.get(name);
    return this.parent?.get(name);
  }

  set(name: string, value: Value): void {
    this.#names.set(name, value);
  }
}

type Flow = 'next' | 'break' | 'continue';

/** Throws TemplateError, or whatever a global throws. */
export function renderTemplate(body: Statement[], globals: ReadonlyMap<string, Value>): string {
  const scope = new Scope();
  for (const [name, value] of BUILTINS) scope.set(name, value);
  for (const [name, value] of globals) scope.set(name, value);
  const out: string[] = [];
  return withBudget(() => {
    if (new Renderer().block(body, scope, out) !== 'next')
      throw new TemplateError('break or continue outside of a loop');
    return out.join('');
  });
}

const BUILTINS: [string, Value][] = [
  ['true', true],
  ['True', true],
  ['false', false],
  ['False', false],
  ['none', null],
  ['None', null],
  ['range', (args): Value => range(args.map((arg) => numberOf(arg) ?? NaN))],
  ['dict', ([from], kwargs): Value => new Map([...(isDict(from) ? from : []), ...kwargs])],
  [
    'namespace',
    ([from], kwargs): Value =>
      new Attributes(new Map([...(isDict(from) ? from : new Map<Value, Value>()), ...kwargs] as [string, Value][])),
  ],
];

function range(args: number[]): Value[] {
  const [start, stop, step] =
    args.length === 1 ? [0, args[0] ?? NaN, 1] : [args[0] ?? NaN, args[1] ?? NaN, args[2] ?? 1];
  const count = Math.max(0, Math.ceil((stop - start) / step));
  if (!(count <= RANGE_MAX)) throw new TemplateError(`range() of ${count} items, at most ${RANGE_MAX}`);
  return Array.from({ length: count }, (_, i) => start + i * step);
}

class Renderer {
  readonly #filters = makeFilters((value, name) => this.#item(value, name));

  block(body: Statement[], scope: Scope, out: string[]): Flow {
    for (const statement of body) {
      const flow = this.#statement(statement, scope, out);
      if (flow !== 'next') return flow;
    }
    return 'next';
  }

  #text(body: Statement[], scope: Scope): string {
    const out: string[] = [];
    if (this.block(body, scope, out) !== 'next') throw new TemplateError('break or continue outside of a loop');
    return limited(out.join(''));
  }

  #statement(node: Statement, scope: Scope, out: string[]): Flow {
    switch (node.type) {
      case 'If':
        return this.block(isTrue(this.#value(node.test, scope)) ? node.body : node.alternate, scope, out);
      case 'For':
        return this.#for(node, scope, out);
      case 'Set':
        this.#set(node, scope);
        return 'next';
      case 'Macro':
        scope.set(node.name.value, this.#macro(node.args, node.body, scope, node.name.value));
        return 'next';
      case 'CallStatement':
        out.push(toText(this.#callBlock(node, scope)));
        return 'next';
      case 'FilterStatement':
        out.push(toText(this.#filter(this.#text(node.body, new Scope(scope)), node.filter, scope)));
        return 'next';
      case 'Break':
        return 'break';
      case 'Continue':
        return 'continue';
      case 'Comment':
        return 'next';
      default: {
        const text = toText(this.#value(node, scope));
        spendFor(text);
        out.push(text);
        return 'next';
      }
    }
  }

  #for(node: For, scope: Scope, out: string[]): Flow {
    const { iterable: source, loopvar } = node;
    const filter = source.type === 'SelectExpression' ? source : undefined;
    let items = iterate(this.#value(filter?.lhs ?? source, scope));
    spend(items.length);
    if (filter) {
      items = items.filter((item) => {
        const inner = new Scope(scope);
        this.#assign(loopvar, item, inner);
        return isTrue(this.#value(filter.test, inner));
      });
    }
    if (items.length === 0) return this.block(node.defaultBlock, new Scope(scope), out);
    const loop = new LoopState(items, scope.get('loop'));
    for (let i = 0; i < items.length; i++) {
      const inner = new Scope(scope);
      inner.set('loop', loop.at(i));
      this.#assign(loopvar, items[i], inner);
      if (this.block(node.body, inner, out) === 'break') break;
    }
    return 'next';
  }

  #assign(target: Expression, value: Value, scope: Scope): void {
    if (target.type === 'Identifier') {
      scope.set(target.value, value);
    } else if (target.type === 'TupleLiteral') {
      const items = iterate(value);
      if (items.length !== target.value.length) {
        throw new TemplateError(`${items.length} values for ${target.value.length} names`);
      }
      target.value.forEach((name, i) => this.#assign(name, items[i], scope));
    } else if (target.type === 'MemberExpression' && !target.computed && target.property.type === 'Identifier') {
      const object = this.#value(target.object, scope);
      if (!(object instanceof Attributes)) throw new TemplateError(`can't set a member of ${typeName(object)}`);
      object.map.set(target.property.value, value);
    } else {
      throw new TemplateError(`can't assign to ${target.type}`);
    }
  }

  #set(node: SetStatement, scope: Scope): void {
    const value = node.value ? this.#value(node.value, scope) : this.#text(node.body, new Scope(scope));
    this.#assign(node.assignee, value, scope);
  }

  /** A callable that binds its arguments as Python does and gives the text of its body. */
  #macro(parameters: Parameter[], body: Statement[], scope: Scope, name: string): Callable {
    return (args, kwargs) => {
      const inner = new Scope(scope);
      const rest = new Map(kwargs);
      parameters.forEach((parameter, i) => {
        const key = parameter.type === 'Identifier' ? parameter.value : parameter.key.value;
        const isGiven = i < args.length || rest.has(key);
        const fallback = parameter.type === 'Identifier' ? undefined : parameter.value;
        inner.set(
          key,
          isGiven ? (i < args.length ? args[i] : rest.get(key)) : fallback && this.#value(fallback, inner),
        );
        rest.delete(key);
      });
      const caller = rest.get('caller');
      rest.delete('caller');
      if (caller !== undefined) inner.set('caller', caller);
      inner.set('varargs', args.slice(parameters.length));
      inner.set('kwargs', new Map<Value, Value>(rest));
      const isOver = args.length > parameters.length || rest.size > 0;
      if (isOver && !takesMore(body)) {
        throw new TemplateError(`macro '${name}' got too many arguments`);
      }
      return this.#text(body, inner);
    };
  }

  #callBlock(node: CallBlock, scope: Scope): Value {
    const { args, kwargs } = this.#arguments(node.call.args, scope);
    kwargs.set('caller', this.#macro(node.callerArgs ?? [], node.body, scope, 'caller'));
    return this.#call(this.#value(node.call.callee, scope), args, kwargs, node.call.callee);
  }

  #call(callee: Value, args: Value[], kwargs: Kwargs, node: Expression): Value {
    if (typeof callee !== 'function')
      throw new TemplateError(`${describe(node)} is ${typeName(callee)}, not a function`);
    const result = callee(args, kwargs);
    spendFor(result);
    return result;
  }

  #arguments(nodes: Expression[], scope: Scope): { args: Value[]; kwargs: Kwargs } {
    const args: Value[] = [];
    const kwargs: Kwargs = new Map();
    for (const node of nodes) {
      if (node.type === 'KeywordArgumentExpression') {
        kwargs.set(node.key.value, this.#value(node.value, scope));
      } else if (node.type === 'SpreadExpression') {
        args.push(...iterate(this.#value(node.argument, scope)));
      } else if (node.type === 'KeywordSpreadExpression') {
        const more = this.#value(node.argument, scope);
        if (!isDict(more)) throw new TemplateError(`** of ${typeName(more)}`);
        for (const [key, value] of more) kwargs.set(toText(key), value);
      } else {
        args.push(this.#value(node, scope));
      }
    }
    return { args, kwargs };
  }

  #filter(value: Value, node: Expression, scope: Scope): Value {
    const call = node.type === 'CallExpression' ? node : undefined;
    const name = call?.callee ?? node;
    const filter = name.type === 'Identifier' ? this.#filters.get(name.value) : undefined;
    if (!filter) throw new TemplateError(`filter '${describe(name)}' is not supported`);
    const { args, kwargs } = this.#arguments(call?.args ?? [], scope);
    spendFor(value);
    const result = filter(value, args, kwargs);
    spendFor(result);
    return result;
  }

  #value(node: Expression, scope: Scope): Value {
    spend(1);
    switch (node.type) {
      case 'Identifier':
        return scope.get(node.value);
      case 'StringLiteral':
      case 'IntegerLiteral':
        return node.value;
      case 'FloatLiteral':
        return new Float(node.value);
      case 'ArrayLiteral':
        return node.value.map((item) => this.#value(item, scope));
      case 'TupleLiteral':
        return Tuple.from(node.value, (item) => this.#value(item, scope));
      case 'ObjectLiteral':
        return new Map([...node.value].map(([key, value]) => [this.#value(key, scope), this.#value(value, scope)]));
      case 'MemberExpression':
        return this.#member(node.object, node.property, node.computed, scope);
      case 'CallExpression': {
        const callee = this.#value(node.callee, scope);
        const { args, kwargs } = this.#arguments(node.args, scope);
        return this.#call(callee, args, kwargs, node.callee);
      }
      case 'BinaryExpression':
        return this.#binary(node.operator.value, node.left, node.right, scope);
      case 'UnaryExpression':
        return unary(node.operator.value, this.#value(node.argument, scope));
      case 'FilterExpression':
        return this.#filter(this.#value(node.operand, scope), node.filter, scope);
      case 'TestExpression':
        return testOf(node.test.value)(this.#value(node.operand, scope), undefined) !== node.negate;
      case 'Ternary':
        return this.#value(isTrue(this.#value(node.condition, scope)) ? node.trueExpr : node.falseExpr, scope);
      case 'SelectExpression':
        return isTrue(this.#value(node.test, scope)) ? this.#value(node.lhs, scope) : undefined;
      default:
        throw new TemplateError(`${node.type} is not supported here`);
    }
  }

  #member(objectNode: Expression, property: Expression | Slice, isComputed: boolean, scope: Scope): Value {
    const object = this.#value(objectNode, scope);
    if (object === undefined) throw new TemplateError(`${describe(objectNode)} is undefined`);
    if (typeof object === 'string') spendFor(object); // its characters or a method of it
    if (property.type === 'SliceExpression') return this.#slice(object, property, scope);
    if (isComputed) return this.#item(object, this.#value(property, scope));
    if (property.type === 'IntegerLiteral') return this.#item(object, property.value);
    const name = property.type === 'Identifier' ? property.value : '';
    return methodOf(object, name) ?? this.#item(object, name);
  }

  /** `object[key]`; a key that is missing gives Undefined, and a method's name gives the method. */
  #item(object: Value, key: Value): Value {
    if (object instanceof Attributes) return object.map.get(toText(key));
    if (isDict(object) && object.has(key)) return object.get(key);
    const index = typeof key === 'boolean' ? Number(key) : key;
    if (typeof index === 'number' && (Array.isArray(object) || typeof object === 'string')) {
      return typeof object === 'string' ? Array.from(object).at(index) : object.at(index);
    }
    if (object === undefined) throw new TemplateError(`member '${toText(key)}' of an undefined value`);
    return typeof key === 'string' ? methodOf(object, key) : undefined;
  }

  #slice(object: Value, node: Slice, scope: Scope): Value {
    if (typeof object !== 'string' && !Array.isArray(object)) throw new TemplateError(`slice of ${typeName(object)}`);
    const items = typeof object === 'string' ? Array.from(object) : object;
    const [start, stop, step = 1] = [node.start, node.stop, node.step].map((part) => {
      const value = part && this.#value(part, scope);
      return value === null || value === undefined ? undefined : numberOf(value);
    });
    if (step === 0) throw new TemplateError('slice step is zero');
    const low = step > 0 ? 0 : -1;
    const high = step > 0 ? items.length : items.length - 1;
    const clamp = (i: number): number => Math.min(high, Math.max(low, i < 0 ? i + items.length : i));
    const from = start === undefined ? (step > 0 ? low : high) : clamp(start);
    const to = stop === undefined ? (step > 0 ? high : low) : clamp(stop);
    const picked: Value[] = [];
    for (let i = from; step > 0 ? i < to : i > to; i += step) picked.push(items[i]);
    spendFor(picked);
    return typeof object === 'string' ? picked.map(toText).join('') : picked;
  }

  #binary(operator: string, leftNode: Expression, rightNode: Expression, scope: Scope): Value {
    const left = this.#value(leftNode, scope);
    if (operator === 'and') return isTrue(left) ? this.#value(rightNode, scope) : left;
    if (operator === 'or') return isTrue(left) ? left : this.#value(rightNode, scope);
    const right = this.#value(rightNode, scope);
    switch (operator) {
      case '==':
        return isEqual(left, right);
      case '!=':
        return !isEqual(left, right);
      case '<':
        return compare(left, right) < 0;
      case '>':
        return compare(left, right) > 0;
      case '<=':
        return compare(left, right) <= 0;
      case '>=':
        return compare(left, right) >= 0;
      case 'in':
        return isIn(left, right);
      case 'not in':
        return !isIn(left, right);
      case '~':
        return limited(toText(left) + toText(right));
      default:
        return arithmetic(operator, left, right);
    }
  }
}

/** The `loop` variable of one `for`. */
class LoopState {
  readonly #depth: number;
  readonly #changed: Value[] = [];

  constructor(
    readonly items: Value[],
    outer: Value,
  ) {
    this.#depth = outer instanceof Attributes ? (numberOf(outer.map.get('depth')) ?? 0) + 1 : 1;
  }

  at(i: number): Attributes {
    const { length } = this.items;
    const entries: [string, Value][] = [
      ['index', i + 1],
      ['index0', i],
      ['revindex', length - i],
      ['revindex0', length - i - 1],
      ['first', i === 0],
      ['last', i === length - 1],
      ['length', length],
      ['depth', this.#depth],
      ['depth0', this.#depth - 1],
      ['previtem', i > 0 ? this.items[i - 1] : undefined],
      ['nextitem', this.items[i + 1]],
      ['cycle', (args: Value[]): Value => args[i % args.length]],
      ['changed', (args: Value[]): Value => !isEqual(this.#changed.splice(0, Infinity, args)[0], args)],
    ];
    return new Attributes(new Map(entries));
  }
}

/** Whether a macro's body reads what its parameters don't take. */
function takesMore(body: Statement[]): boolean {
  const known = TAKES_MORE.get(body) ?? /"(varargs|kwargs)"/.test(JSON.stringify(body));
  TAKES_MORE.set(body, known);
  return known;
}

function describe(node: Expression): string {
  if (node.type === 'Identifier') return node.value;
  if (node.type === 'MemberExpression' && node.property.type === 'Identifier') {
    return `${describe(node.object)}.${node.property.value}`;
  }
  return node.type;
}

function limited(text: string): string {
  if (text.length > TEXT_MAX) throw new TemplateError(`a text has over ${TEXT_MAX} characters`);
  return text;
}

function unary(operator: string, value: Value): Value {
  if (operator === 'not') return !isTrue(value);
  const number = numberOf(value);
  if (number === undefined) throw new TemplateError(`${operator} of ${typeName(value)}`);
  const signed = operator === '-' ? -number : number;
  return value instanceof Float ? new Float(signed) : signed;
}

function arithmetic(operator: string, left: Value, right: Value): Value {
  if (operator === '+') {
    if (typeof left === 'string' && typeof right === 'string') return limited(left + right);
    if (Array.isArray(left) && Array.isArray(right)) {
      spendFor(left);
      spendFor(right);
      return [...left, ...right];
    }
  }
  const [a, b] = [numberOf(left), numberOf(right)];
  if (operator === '*' && typeof left === 'string' && typeof right === 'number') {
    if (left.length * right > TEXT_MAX) throw new TemplateError(`a text has over ${TEXT_MAX} characters`);
    const text = left.repeat(Math.max(0, right));
    spendFor(text);
    return text;
  }
  if (a === undefined || b === undefined) {
    throw new TemplateError(`${typeName(left)} ${operator} ${typeName(right)} is not supported`);
  }
  const isFloat = left instanceof Float || right instanceof Float || operator === '/' || (operator === '**' && b < 0);
  if (b === 0 && ['/', '//', '%'].includes(operator)) throw new TemplateError('division by zero');
  const result = compute(operator, a, b);
  if (!isFloat && !Number.isSafeInteger(result)) throw new TemplateError(`${operator} gives an integer over 2^53`);
  return isFloat ? new Float(result) : result + 0; // no negative zero among ints
}

function compute(operator: string, a: number, b: number): number {
  switch (operator) {
    case '+':
      return a + b;
    case '-':
      return a - b;
    case '*':
      return a * b;
    case '/':
      return a / b;
    case '//':
      return Math.floor(a / b);
    case '%':
      return a - b * Math.floor(a / b);
    case '**':
      return a ** b;
    default:
      throw new TemplateError(`operator ${operator} is not supported`);
  }
}
