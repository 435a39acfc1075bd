import { mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { OpenLoraError } from '../../../src/errors.js';
import { ChatTemplates, readChatTemplates } from '../../../src/formats/chat-template.js';
import { openTokenizer, type Tokenizer } from '../../../src/formats/tokenizer.js';
import { buildTokenizerWorker } from '../build-worker.js';
import { TOKENIZERS, type Conversation, type References, digest, idDigest, readHere, realFolder } from './real.js';

interface Template {
  name: string;
  template: string;
}

const conversations = readHere<Conversation[]>('conversations.json');
const rendered = readHere<{ texts: Record<string, string> }>('references/chats.json').texts;
const now = (): Date => new Date(2025, 0, 2, 15, 4, 5);
let folder: string;
let templates: Template[];

beforeAll(async () => {
  await buildTokenizerWorker();
  folder = await realFolder();
  templates = JSON.parse(readFileSync(`${folder}/templates.json`, 'utf8')) as Template[];
});

/** As make-references.py's `render`, hashed: a refusal is `!` and the hash of the template's own message, if it raised. */
function renderHashed(render: () => string): string {
  try {
    return digest(render());
  } catch (error) {
    if (!OpenLoraError.is(error) || error.code !== 'ERR_CHAT_TEMPLATE') throw error;
    return error.details.reason === 'raised' ? `!${digest(`!${error.message}`)}` : '!';
  }
}

describe('the real chat templates', () => {
  const render = (template: string, { messages, tools }: Conversation, addGenerationPrompt: boolean): string =>
    new ChatTemplates(
      readChatTemplates({
        tokenizerConfig: JSON.stringify({ bos_token: '<s>', eos_token: '</s>' }),
        jinja: template,
        chatTemplateJson: undefined,
      }),
      now,
    ).render(messages, { addGenerationPrompt, ...(tools && { tools }) });

  test('render every conversation as transformers does, or refuse it as it does', () => {
    expect(templates.length).toBe(101);
    const differences: string[] = [];
    for (const { name, template } of templates) {
      const expected = rendered[digest(template)]?.split(' ') ?? [];
      expect(expected.length).toBe(conversations.length * 2);
      conversations.forEach((conversation, i) => {
        for (const [j, addGenerationPrompt] of [true, false].entries()) {
          const got = renderHashed(() => render(template, conversation, addGenerationPrompt));
          if (got === expected[i * 2 + j]) continue;
          differences.push(`${name}, ${conversation.name}, ${addGenerationPrompt}: ${got} ${expected[i * 2 + j]}`);
        }
      });
    }
    expect(differences).toEqual([]);
  });
});

const withChat = TOKENIZERS.filter((name) => readHere<References>(`references/${name}.json`).chat);

describe.each(withChat)('chats of the real tokenizer %s', (name) => {
  const { chat } = readHere<References>(`references/${name}.json`);
  const own = mkdtempSync(join(tmpdir(), 'openlora-chat-'));
  let tokenizer: Tokenizer;

  beforeAll(async () => {
    const { template } = templates.find((one) => one.name === chat?.name) ?? { template: '' };
    expect(digest(template)).toBe(chat?.template);
    symlinkSync(`${folder}/${name}/tokenizer.json`, join(own, 'tokenizer.json'));
    writeFileSync(join(own, 'chat_template.jinja'), template);
    const config = { bos_token: chat?.bos, eos_token: '</s>' };
    writeFileSync(join(own, 'tokenizer_config.json'), JSON.stringify(config));
    tokenizer = await openTokenizer({ folder: own });
  }, 120_000);
  afterAll(async () => {
    await tokenizer.dispose();
    rmSync(own, { recursive: true });
  });

  test('have the ids of transformers, and special tokens in messages stay text unless asked', async () => {
    const differences: string[] = [];
    for (const [i, { name: kind, messages, tools }] of conversations.entries()) {
      const wanted = chat?.ids[i] ?? null;
      for (const [j, parseSpecialTokens] of [true, false].entries()) {
        const encoded = tokenizer.encodeChat(messages, { parseSpecialTokens, ...(tools && { tools }) });
        const got = await encoded.then(({ tokens }) => idDigest(tokens)).catch((error: Error) => error.message);
        if (wanted ? got !== wanted[j] : /^[0-9a-f]{12}$/.test(got)) differences.push(`${kind}: ${got}`);
      }
    }
    expect(differences).toEqual([]);
  });
});
