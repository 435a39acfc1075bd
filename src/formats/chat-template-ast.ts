// Jinja source → syntax tree, by @huggingface/jinja. Its parser is used and its interpreter is not: see
// chat-template-render.ts. The tree's shape is that of the pinned version 0.5.11, whose types aren't exported.

import { parse, tokenize } from '@huggingface/jinja';
import { TemplateError } from './chat-template-value.js';

interface Name {
  type: 'Identifier';
  value: string;
}
interface KeywordArgument {
  type: 'KeywordArgumentExpression';
  key: Name;
  value: Expression;
}
export type Parameter = Name | KeywordArgument;
export interface Call {
  type: 'CallExpression';
  callee: Expression;
  args: Expression[];
}
export interface Slice {
  type: 'SliceExpression';
  start?: Expression;
  stop?: Expression;
  step?: Expression;
}
export interface Member {
  type: 'MemberExpression';
  object: Expression;
  property: Expression | Slice;
  computed: boolean;
}
export interface Binary {
  type: 'BinaryExpression';
  operator: { value: string };
  left: Expression;
  right: Expression;
}
export interface Tuple {
  type: 'TupleLiteral';
  value: Expression[];
}
export interface Select {
  type: 'SelectExpression';
  lhs: Expression;
  test: Expression;
}

export type Expression =
  | Name
  | KeywordArgument
  | Call
  | Member
  | Binary
  | Tuple
  | Select
  | { type: 'IntegerLiteral' | 'FloatLiteral'; value: number }
  | { type: 'StringLiteral'; value: string }
  | { type: 'ArrayLiteral'; value: Expression[] }
  | { type: 'ObjectLiteral'; value: Map<Expression, Expression> }
  | { type: 'FilterExpression'; operand: Expression; filter: Name | Call }
  | { type: 'TestExpression'; operand: Expression; negate: boolean; test: Name }
  | { type: 'UnaryExpression'; operator: { value: string }; argument: Expression }
  | { type: 'SpreadExpression' | 'KeywordSpreadExpression'; argument: Expression }
  | { type: 'Ternary'; condition: Expression; trueExpr: Expression; falseExpr: Expression };

export interface For {
  type: 'For';
  loopvar: Name | Tuple;
  iterable: Expression;
  body: Statement[];
  defaultBlock: Statement[];
}
export interface SetStatement {
  type: 'Set';
  assignee: Expression;
  value: Expression | null;
  body: Statement[];
}
export interface Macro {
  type: 'Macro';
  name: Name;
  args: Parameter[];
  body: Statement[];
}
export interface CallBlock {
  type: 'CallStatement';
  call: Call;
  callerArgs: Parameter[] | null;
  body: Statement[];
}

/** Text, and an expression between `{{ }}`, are statements that write. */
export type Statement =
  | Expression
  | For
  | SetStatement
  | Macro
  | CallBlock
  | { type: 'If'; test: Expression; body: Statement[]; alternate: Statement[] }
  | { type: 'FilterStatement'; filter: Name | Call; body: Statement[] }
  | { type: 'Break' | 'Continue' | 'Comment' };

type Token = ReturnType<typeof tokenize>[number];

/** What ends a comparison's operand at its own depth of brackets. */
const ENDS_COMPARISON = new Set(['Equals', 'Comma', 'Colon', 'OpenStatement', 'OpenExpression']);
const ENDING_WORDS = new Set(['and', 'or', 'not', 'if', 'else', 'elif', 'for', 'set']);

/** `a < b < c` means `a < b and b < c`, but is parsed as `(a < b) < c`: refused. `(a == b) == c` is fine. */
function refuseChains(tokens: readonly Token[]): void {
  const hasComparison = [false]; // at each depth of brackets
  tokens.forEach(({ type, value }, i) => {
    const depth = hasComparison.length - 1;
    const isWord = type === 'Identifier' && tokens[i - 1]?.type !== 'Dot';
    if (type.startsWith('Open') && !ENDS_COMPARISON.has(type)) {
      hasComparison.push(false);
    } else if (type === 'CloseParen' || type.startsWith('CloseSquare') || type.startsWith('CloseCurly')) {
      if (depth > 0) hasComparison.pop();
    } else if (ENDS_COMPARISON.has(type) || (isWord && ENDING_WORDS.has(value) && tokens[i + 1]?.value !== 'in')) {
      hasComparison[depth] = false;
    } else if (type === 'ComparisonBinaryOperator' || (isWord && value === 'in')) {
      if (hasComparison[depth]) throw new TemplateError(`a chain of comparisons ('${value}') is not supported`);
      hasComparison[depth] = true;
    }
  });
}

/** Throws the parser's error for what it can't read. Newlines are normalized, as Jinja2 does. */
export function parseTemplate(source: string): Statement[] {
  const tokens = tokenize(source.replace(/\r\n?/g, '\n'), { lstrip_blocks: true, trim_blocks: true });
  refuseChains(tokens);
  return (parse(tokens) as unknown as { body: Statement[] }).body;
}
