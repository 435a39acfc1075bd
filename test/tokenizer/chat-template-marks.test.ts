import { describe, expect, test } from 'vitest';
import { ChatTemplates, readChatTemplates } from '../../src/formats/chat-template.js';
import type { ChatMessage, Tool } from '../../src/formats/tokenizer-types.js';

const templates = new ChatTemplates(
  readChatTemplates({ tokenizerConfig: '{"eos_token":"<T>"}', jinja: undefined, chatTemplateJson: undefined }),
);
const SPECIAL = ['<T>', '<I>', '[I]'];

/** The text, with ^ before each character that is said to be an input's and could begin a special token. */
function shown(
  template: string,
  content: ChatMessage['content'],
  rest: Partial<ChatMessage> = {},
  tools?: Tool[],
): string {
  const messages = [{ role: 'user', content, ...rest }];
  const options = { template, ...(tools && { tools }) };
  const { text, inputs } = templates.renderMarked(messages, options, SPECIAL);
  expect(text).toBe(templates.render(messages, options));
  return Array.from({ length: text.length }, (_, i) => (inputs.has(i) ? '^' : '') + text[i]).join('');
}

describe('what of a rendered text came from messages', () => {
  const content = "{% set c = messages[0].content %}{{ '<T>' }}";
  test.each([
    ['as it is', `${content}{{ c + '<T>' + eos_token }}`, 'a<I>[b', '<T>a^<I>^[b<T><T>'],
    [
      'stripped',
      `${content}{{ ('<T> ' ~ c) | trim }}{{ c.strip() }}{{ c.lstrip(' <') }}`,
      ' <I> ',
      '<T><T>  ^<I>^<I>I> ',
    ],
    [
      'split',
      `${content}{{ c.split('<I>') | join('<T>') }}{{ c.split('</I>')[-1] }}`,
      'a<I>b</I><I>',
      '<T>a<T>b^</I><T>^<I>',
    ],
    ['split by what it says itself', `${content}{{ 'x<T>y'.split(c)[1] }}`, '<T>', '<T>y'],
    ['replaced', `${content}{{ c.replace('<I>', '<T>') }}{{ c | replace('b', '<T>') }}`, 'b<I>', '<T>b<T><T>^<I>'],
    [
      'searched',
      `${content}{{ '<I>' in c }}{{ c.startswith('<') }}{{ c.endswith('>') }}{{ c.find('I') }}{{ c.count('<') }}`,
      '<I>',
      '<T>TrueTrueTrue11',
    ],
    [
      'compared',
      `${content}{{ c == '<I>' }}{{ c != '<I>' }}{{ c in ['<I>'] }}{{ c | length }}`,
      '<I>',
      '<T>TrueFalseTrue3',
    ],
    ['sliced', `${content}{{ c[1:] }}{{ c[0] }}{{ c[::-1] }}{{ c.removeprefix('<') }}`, '<I🦊>', '<T>I🦊>^<>🦊I^<I🦊>'],
    [
      'as JSON',
      `${content}{{ messages | tojson }}{{ c | tojson(ensure_ascii=true) }}`,
      '<é>',
      '<T>^[{"role": "user", "content": "^<é>"}]"^<\\u00e9>"'.replace('^[{', '[{'),
    ],
    ['in a list', `${content}{{ [c] }}{{ {'<T>': c} }}`, "<'I>", `<T>["^<'I>"]{'<T>': "^<'I>"}`],
    [
      'in a block',
      `${content}{% set b %}<T>{{ c }}{% endset %}{{ b | upper }}{% macro m(x) %}<T>{{ x }}{% endmacro %}{{ m(c) }}`,
      '<i>',
      '<T><T>^<I><T>^<i>',
    ],
    ['escaped', `${content}{{ c | e }}`, '<I>', '<T>&lt;I&gt;'],
  ])('%s', (_, template, given, expected) => {
    expect(shown(template, given)).toBe(expected);
  });

  test('parts, roles, names of tools and their parameters', () => {
    const parts = "{% for p in messages[0].content %}{{ p.text }}{% endfor %}{{ '<' }}";
    const text = (value: string): { type: 'text'; text: string } => ({ type: 'text', text: value });
    expect(shown(parts, [text('<'), text('I>')])).toBe('^<I><');
    expect(shown("{{ '<' ~ messages[0].role ~ '>' }}", 'x', { role: 'T' })).toBe('<T>');
    expect(shown('{{ messages[0].role }}', 'x', { role: '<T>' })).toBe('^<T>');
    const tool: Tool = { type: 'function', function: { name: '<I>', parameters: { '<T>': 1 } } };
    expect(shown('{{ tools[0].function | tojson }}', 'x', {}, [tool])).toBe(
      '{"name": "^<I>", "parameters": {"^<T>": 1}}',
    );
  });

  test('a lone surrogate can not pass for a mark, nor hide one', () => {
    expect(shown('{{ messages[0].content }}', '\udc3cI>\ud83e<I>')).toBe('\ufffdI>\ufffd^<I>');
  });

  test('where single characters matter to the template, whole tokens are told apart', () => {
    const title = "{{ messages[0].content | title }}{{ '<T>' }}";
    expect(shown(title, 'a <b>')).toBe('A <B><T>');
    const refused = (): unknown => shown(title, 'a <I>b<I>');
    expect(refused).toThrow(expect.objectContaining({ code: 'ERR_CHAT_TEMPLATE' }));
    expect(refused).toThrow('parseSpecialTokens');
    const { inputs } = templates.renderMarked([{ role: 'user', content: 'a <I>b<I>' }], { template: title }, []);
    expect(inputs.size).toBe(0);
  });

  test('a special token that begins with a character without a mark is refused in messages', () => {
    const run = (content: string) => templates.renderMarked([{ role: 'user', content }], { template: '好' }, ['好I']);
    expect(run('好').inputs.size).toBe(0);
    expect(() => run('a好I')).toThrow(expect.objectContaining({ code: 'ERR_CHAT_TEMPLATE' }));
  });
});
