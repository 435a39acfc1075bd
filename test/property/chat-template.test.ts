import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { ChatTemplates, readChatTemplates } from '../../src/formats/chat-template.js';
import type { ChatMessage, Tool } from '../../src/formats/tokenizer-types.js';
import { changed, changes, coded, holds, oddValue } from './property.js';

const golden = JSON.parse(readFileSync(new URL('../tokenizer/golden/chat.json', import.meta.url), 'utf8')) as {
  template: string;
  messages: ChatMessage[];
  tools?: Tool[];
}[];
const templates = new ChatTemplates(
  readChatTemplates({
    tokenizerConfig: JSON.stringify({ bos_token: '<s>', eos_token: { content: '</s>' } }),
    templates: {},
    chatTemplateJson: undefined,
  }),
  { now: () => new Date(2025, 0, 2, 15, 4, 5) },
);

async function render(template: string, messages: ChatMessage[], tools?: Tool[]): Promise<void> {
  const text = await coded(/^ERR_CHAT_TEMPLATE$/, () =>
    templates.render(messages, { template, ...(tools && { tools }) }),
  );
  if (text !== undefined) expect(typeof text).toBe('string');
}

const USER: ChatMessage[] = [
  { role: 'system', content: 'Be brief.' },
  { role: 'user', content: 'hi "you"\n' },
  { role: 'assistant', content: null, tool_calls: [] },
];

/** Templates by their grammar: most are valid, many fail as they run. */
const { template } = fc.letrec<{ value: string; body: string; template: string }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 4, depthSize: 'small' },
    fc.constantFrom(
      'messages',
      'm',
      'm.role',
      "m['content']",
      'loop.index0',
      'x',
      'ns.a',
      'nothing',
      'bos_token',
      'tools',
    ),
    fc.constantFrom(
      '1',
      '-2',
      '0',
      '2.5',
      "''",
      "'a b'",
      'true',
      'none',
      '[]',
      '{}',
      "{'a': 1}",
      '[1, "b"]',
      'range(3)',
    ),
    fc
      .tuple(
        tie('value'),
        fc.constantFrom('+', '-', '*', '/', '//', '%', '~', '==', '!=', '<', 'in', 'not in', 'and', 'or'),
        tie('value'),
      )
      .map(([a, op, b]) => `(${a} ${op} ${b})`),
    fc
      .tuple(
        tie('value'),
        fc.constantFrom(
          'upper',
          'length',
          'tojson',
          'trim',
          'first',
          'last',
          'list',
          'string',
          'int',
          'join(",")',
          'default(1)',
          'reverse',
          'sort',
          'unique',
          'items',
          'dictsort',
          'map("upper")',
          'selectattr("role")',
          'replace("a","bb")',
          'indent(2)',
          'nosuch',
        ),
      )
      .map(([a, filter]) => `${a} | ${filter}`),
    fc
      .tuple(
        tie('value'),
        fc.constantFrom('defined', 'none', 'string', 'mapping', 'iterable', 'number', 'odd', 'nosuch', 'sameas(1)'),
      )
      .map(([a, name]) => `(${a} is ${name})`),
    fc
      .tuple(
        tie('value'),
        fc.constantFrom(
          '[0]',
          '[-1]',
          '[1:]',
          '[::-1]',
          '[::0]',
          '.strip()',
          '.split("a")',
          '.get("a")',
          '.items()',
          '.append(1)',
          '.nosuch',
          '(1)',
          '["a"]',
        ),
      )
      .map(([a, rest]) => `${a}${rest}`),
    fc.tuple(tie('value'), tie('value'), tie('value')).map(([a, b, c]) => `(${a} if ${b} else ${c})`),
  ),
  body: fc.oneof(
    { maxDepth: 4, depthSize: 'small' },
    fc.constantFrom(
      'text',
      '\n',
      ' ',
      '{# note #}',
      '<|im_start|>',
      '{% break %}',
      '{%- continue -%}',
      '{{',
      '%}',
      '{%',
    ),
    tie('value').map((a) => `{{ ${a} }}`),
    tie('value').map((a) => `{%- set x = ${a} -%}`),
    tie('value').map((a) => `{% set ns.a = ${a} %}`),
    fc.tuple(tie('value'), tie('body')).map(([a, b]) => `{% for m in ${a} %}${b}{% else %}none{% endfor %}`),
    fc
      .tuple(tie('value'), tie('body'), tie('body'))
      .map(([a, b, c]) => `{% if ${a} %}${b}{% elif x %}${c}{% else %}-{% endif %}`),
    tie('body').map((b) => `{% macro f(a, b=1) %}${b}{% endmacro %}{{ f(2) }}`),
    tie('body').map((b) => `{% filter upper %}${b}{% endfilter %}`),
    fc.array(tie('body'), { maxLength: 4 }).map((parts) => parts.join('')),
  ),
  template: tie('body').map((b) => `{% set ns = namespace(a=0) %}{% set x = 1 %}${b}`),
}));

describe('a chat template gives text or a coded error, in a moment', () => {
  test('whatever its grammar makes', () => holds(template, (source) => render(source, USER), 600));

  test('whatever its text', () =>
    holds(
      fc.string({
        unit: fc.oneof(
          fc.constantFrom(
            '{{',
            '}}',
            '{%',
            '%}',
            '-',
            ' ',
            'for',
            'in',
            'if',
            'end',
            '(',
            '[',
            "'",
            '"',
            '\\',
            '|',
            '.',
          ),
          fc.string({ minLength: 1, maxLength: 1 }),
        ),
        maxLength: 40,
      }),
      (source) => render(source, USER),
      400,
    ));

  test('when a real one is damaged', () =>
    holds(
      fc.tuple(
        fc.constantFrom(...golden),
        fc.array(fc.tuple(fc.nat(), fc.nat({ max: 12 }), fc.string({ maxLength: 6 })), { maxLength: 3 }),
      ),
      ([{ template: source, messages, tools }, cuts]) => {
        let damaged = source;
        for (const [at, count, more] of cuts) {
          const place = at % (damaged.length + 1);
          damaged = damaged.slice(0, place) + more + damaged.slice(place + count);
        }
        return render(damaged, messages, tools);
      },
      400,
    ));

  test('when the conversation is not what it expects', () =>
    holds(fc.tuple(fc.constantFrom(...golden), changes), ([{ template: source, messages, tools }, list]) => {
      const odd = JSON.parse(changed({ messages, tools: tools ?? [] }, list)) as {
        messages?: ChatMessage[];
        tools?: Tool[];
      } | null;
      return render(source, odd?.messages ?? USER, odd?.tools);
    }));

  test.each([
    ['doubles a text', '{% set ns.t = ns.t ~ ns.t %}'],
    ['doubles a text by replace', "{% set ns.t = ns.t.replace('x', 'xx') %}"],
    ['prints a text again and again', "{{ 'a b c d' * 1000 }}"],
    ['prints the conversation again and again', '{{ messages | tojson(indent=9) }}'],
    ['indents far', "{{ 'a\\nb' | indent(10 ** 9) }}{{ messages | tojson(indent=10 ** 9) }}"],
    ['repeats a text', "{{ ('a' * 99999999) | upper }}"],
    ['splits a long text', "{% set x = 'ab' * 999999 %}{{ x | length }}{{ x.split('a') | length }}"],
    ['looks for the end of a long text', "{% set x = 'ab' * 999999 %}{{ x[-1] }}{{ x.endswith('b') }}"],
    ['takes a long text for a number', "{{ ('1' * 999999 ~ 'x') | float }}"],
    ['makes ranges', '{% set x = range(99999) | list %}'],
    ['doubles a list', '{% set ns.l = ns.l + ns.l %}'],
    [
      'holds a list twice, and prints it',
      '{% set ns.l = [ns.l, ns.l] %}{% if loop.index == 60 %}{{ ns.l }}{% endif %}',
    ],
    [
      'holds a list twice, and compares it',
      '{% set ns.l = [ns.l, ns.l] %}{% set ns.m = [ns.m, ns.m] %}{% if loop.index == 60 %}{{ ns.l == ns.m }}{% endif %}',
    ],
    ['puts a list into a list', '{% set ns.l = [ns.l] %}{% if loop.index == 9999 %}{{ ns.l | tojson }}{% endif %}'],
    [
      'maps a long text many times over',
      "{% set x = 'ab' * 999999 %}{{ [x, x, x, x, x, x, x, x] | map('upper') | join | length }}",
    ],
    [
      'calls a macro with too much',
      '{% macro f() %}{{ varargs }}' + 'text{{ x }}'.repeat(5000) + '{% endmacro %}{% set x = f(1) %}',
    ],
  ])('that %s', (_, body) =>
    holds(
      fc.constant(`{% set ns = namespace(t='x', l=[1], m=[1]) %}{% for i in range(99999) %}${body}{% endfor %}`),
      (source) => render(source, USER),
      1,
    ),
  );

  test.each([
    ['lists', '{{ ' + '['.repeat(20000) + ']'.repeat(20000) + ' }}'],
    ['brackets', '{{ ' + '('.repeat(20000) + '1' + ')'.repeat(20000) + ' }}'],
    ['sums', '{{ ' + '1 + '.repeat(20000) + '1 }}'],
    ['loops', '{% for i in [1] %}'.repeat(5000) + '{{ i }}' + '{% endfor %}'.repeat(5000)],
    ['macros', '{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}'],
  ])('that goes deep: %s', (_, source) => holds(fc.constant(source), (text) => render(text, USER), 1));
});

describe("a folder's files of templates are read or refused by a code", () => {
  const files = {
    chat_template: [
      { name: 'default', template: 'x' },
      { name: 'tool_use', template: 'y' },
    ],
    bos_token: { content: '<s>' },
    extra_special_tokens: ['<a>'],
  };
  test('whatever they hold', () =>
    holds(fc.tuple(changes, changes, oddValue), async ([first, second, value]) => {
      const source = await coded(/^ERR_TOKENIZER_UNSUPPORTED$/, () =>
        readChatTemplates({
          tokenizerConfig: changed(files, first),
          templates: {},
          chatTemplateJson: changed({ chat_template: value }, second),
        }),
      );
      if (source) await coded(/^ERR_CHAT_TEMPLATE(_MISSING)?$/, () => new ChatTemplates(source).render(USER));
    }));
});
