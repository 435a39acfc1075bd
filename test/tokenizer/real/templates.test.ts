import { expect, test } from 'vitest';
import { OpenLoraError } from '../../../src/errors.js';
import { ChatTemplates, readChatTemplates, templateTrees } from '../../../src/formats/chat-template.js';
import { realTemplates } from './prepare.mjs';
import { digest, readConversations, readHere } from './real.js';

const conversations = readConversations();
const rendered = readHere<{ texts: Record<string, string> }>('references/chats.golden.json').texts;
const now = (): Date => new Date(2025, 0, 2, 15, 4, 5);
const SPECIAL = [
  '<s>',
  '</s>',
  '<|im_start|>',
  '<|im_end|>',
  '[INST]',
  '[/INST]',
  '<think>',
  '</think>',
  '<tool_call>',
];

/** As make-references.py's `render`, hashed: a refusal is `!` and the hash of the template's own message, if it raised. */
function renderHashed(render: () => string): string {
  try {
    return digest(render());
  } catch (error) {
    if (!OpenLoraError.is(error) || error.code !== 'ERR_CHAT_TEMPLATE') throw error;
    return error.details.reason === 'raised' ? `!${digest(`!${error.message}`)}` : '!';
  }
}

function templatesOf(template: string): ChatTemplates {
  const tokenizerConfig = JSON.stringify({ bos_token: '<s>', eos_token: '</s>' });
  const source = readChatTemplates({
    tokenizerConfig,
    templates: { default: template },
    chatTemplateJson: undefined,
  });
  // Parsed elsewhere, as a tokenizer's thread does for the other one.
  return new ChatTemplates(source, { trees: templateTrees(source), now });
}

/** No text at all, or a list of texts, which most templates don't expect: they have twins, of text alone. */
function ofFewTemplates(name: string): boolean {
  const hasList = /^(?:content in parts|empty parts|tool result in parts)/.test(name);
  const hasTwin = conversations.some((other) => other.name === `${name}, empty text`);
  return hasList || hasTwin || /^(?:null |no content key)/.test(name);
}

test('the real chat templates render every conversation as transformers does, or refuse it as it does', () => {
  const real = realTemplates();
  expect(real.length).toBe(101);
  const differences: string[] = [];
  const renderings = new Map<string, number>();
  for (const { name, template } of real) {
    const templates = templatesOf(template);
    const expected = rendered[digest(template)]?.split(' ') ?? [];
    expect(expected.length).toBe(conversations.length * 2);
    conversations.forEach(({ name: kind, messages, tools }, i) => {
      for (const [j, addGenerationPrompt] of [true, false].entries()) {
        const options = { addGenerationPrompt, ...(tools && { tools }) };
        const got = renderHashed(() => templates.render(messages, options));
        const wanted = expected[i * 2 + j];
        if (got !== wanted) differences.push(`${name}, ${kind}, ${addGenerationPrompt}: ${got} ${wanted}`);
        if (got.startsWith('!')) continue;
        renderings.set(kind, (renderings.get(kind) ?? 0) + 1);
        // Telling the messages' characters from the template's never changes the text, and never fails.
        const marked = renderHashed(() => templates.renderMarked(messages, options, SPECIAL).text);
        if (marked !== wanted)
          differences.push(`${name}, ${kind}, ${addGenerationPrompt}, marked: ${marked} ${wanted}`);
      }
    });
  }
  expect(differences).toEqual([]);
  // Refusals that agree show little: most conversations are rendered by most templates.
  expect([...renderings.values()].reduce((sum, count) => sum + count, 0)).toBeGreaterThanOrEqual(9400);
  expect(conversations.filter(({ name }) => !ofFewTemplates(name) && (renderings.get(name) ?? 0) < 140)).toEqual([]);
  for (const { name } of conversations) expect(renderings.get(name), name).toBeGreaterThanOrEqual(20);
});
