// Jinja source → syntax tree, by @huggingface/jinja. Its parser is used and its interpreter is not: see
// chat-template-render.ts. The tree's shape is that of the pinned version 0.5.11, whose types aren't exported.

import { parse, tokenize } from '@huggingface/jinja';

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

/** Throws the parser's error for what it can't read. Newlines are normalized, as Jinja2 does. */
export function parseTemplate(source: string): Statement[] {
  const tokens = tokenize(source.replace(/\r\n?/g, '\n'), { lstrip_blocks: true, trim_blocks: true });
  return (parse(tokens) as unknown as { body: Statement[] }).body;
}
