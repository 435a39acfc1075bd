import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { ChatTemplates, readChatTemplates } from '../../src/formats/chat-template.js';
import type { ChatMessage, Tool } from '../../src/formats/tokenizer-types.js';

interface Case {
  name: string;
  template: string;
  messages: ChatMessage[];
  tools?: Tool[];
  text?: string;
  error?: string;
}

const cases = JSON.parse(readFileSync(new URL('./golden/chat.json', import.meta.url), 'utf8')) as Case[];
const noFiles = { tokenizerConfig: undefined, templates: {}, chatTemplateJson: undefined };
const now = (): Date => new Date(2025, 0, 2, 15, 4, 5);
const user: ChatMessage[] = [{ role: 'user', content: 'hi' }];

function templatesOf(files: Partial<Parameters<typeof readChatTemplates>[0]>): ChatTemplates {
  return new ChatTemplates(readChatTemplates({ ...noFiles, ...files }), { now });
}
const config = (value: object): { tokenizerConfig: string } => ({ tokenizerConfig: JSON.stringify(value) });
const templates = templatesOf(config({ bos_token: '<s>', eos_token: { content: '</s>' }, unk_token: null }));
const render = (template: string): string => templates.render(user, { template });

describe('chat templates render as transformers renders them', () => {
  test.each([...new Set(cases.map(({ name }) => name))])('%s', (name) => {
    for (const { template, messages, tools, text, error } of cases.filter((one) => one.name === name)) {
      const run = (): string => templates.render(messages, { template, ...(tools && { tools }) });
      if (text !== undefined) expect(run()).toBe(text);
      else expect(run).toThrow(expect.objectContaining({ code: 'ERR_CHAT_TEMPLATE' }));
      if (name === 'raises' && error !== undefined) expect(run).toThrow(error);
    }
  });
});

describe('what a template can not do is refused', () => {
  test.each([
    ['{{ x | nosuchfilter }}', "filter 'nosuchfilter'"],
    ['{{ 1 is nosuchtest }}', "test 'nosuchtest'"],
    ['{{ nosuch() }}', 'nosuch is undefined, not a function'],
    ['{{ "a".nosuch() }}', 'not a function'],
    ['{{ messages.append(1) }}', 'would change its object'],
    ['{% for i in range(200000) %}{% endfor %}', 'at most 100000'],
    [
      '{% for i in range(99999) %}{% for j in range(99999) %}{{ i }}{% endfor %}{% endfor %}',
      'more than 1000000 steps',
    ],
    ['{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}', 'stack'],
    ['{% if %}', 'Unexpected token'],
    ['{% for x in y %}', "can't be rendered"],
    ['{{ 1 < 3 < 2 }}', 'a chain of comparisons'],
    ['{% if (x) == [1][0] in [2] %}{% endif %}', 'a chain of comparisons'],
    ['{{ 1e5 }}', 'Parser Error'],
    [
      "{% set ns = namespace(t='xxxxxxxx') %}{% for i in range(99) %}{% set ns.t = ns.t ~ ns.t %}{% endfor %}",
      'characters',
    ],
    ['{{ nothing | tojson }}', 'undefined is not JSON serializable'],
    ['{{ strftime_now("%Q") }}', "'%Q'"],
  ])('%s', (template, message) => {
    expect(() => render(template)).toThrow(expect.objectContaining({ code: 'ERR_CHAT_TEMPLATE' }));
    expect(() => render(template)).toThrow(message);
  });

  test('no template at all is its own code', () => {
    expect(templates.hasTemplate).toBe(false);
    expect(() => templates.render(user)).toThrow(expect.objectContaining({ code: 'ERR_CHAT_TEMPLATE_MISSING' }));
  });
});

describe('where templates come from', () => {
  test('a list of named templates: tool_use when tools are given, else default', () => {
    const named = templatesOf(
      config({
        chat_template: [
          { name: 'default', template: 'plain' },
          { name: 'tool_use', template: 'tools' },
        ],
      }),
    );
    expect(named.render(user)).toBe('plain');
    expect(named.render(user, { tools: [] })).toBe('tools');
  });

  test('files go before tokenizer_config.json, with all that it names, and that before chat_template.json', () => {
    const inConfig = config({ chat_template: 'config' });
    const chatTemplateJson = JSON.stringify({ chat_template: 'json' });
    expect(templatesOf({ chatTemplateJson }).render(user)).toBe('json');
    expect(templatesOf({ ...inConfig, chatTemplateJson }).render(user)).toBe('config');
    const files = { default: 'file' };
    expect(templatesOf({ ...inConfig, chatTemplateJson, templates: files }).render(user)).toBe('file');
    const named = config({ chat_template: [{ name: 'tool_use', template: 'tools' }] });
    expect(templatesOf({ ...named, templates: files }).render(user, { tools: [] })).toBe('file');
  });

  test('a file that is not JSON is named', () => {
    expect(() => templatesOf({ tokenizerConfig: '{' })).toThrow(
      expect.objectContaining({ code: 'ERR_TOKENIZER_UNSUPPORTED', details: { part: 'tokenizer_config.json' } }),
    );
  });

  test('messages are never changed, and undefined members are as if left out', () => {
    const message = { role: 'user', content: 'x', name: undefined } as unknown as ChatMessage;
    const text = templates.render([message], { template: '{{ messages[0] | tojson }}' });
    expect(text).toBe('{"role": "user", "content": "x"}');
  });
});
