import { readFileSync, rmSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { OpenLoraError } from '../../../src/errors.js';
import { openTokenizer, type ChatMessage, type EncodedChat, type Tokenizer } from '../../../src/formats/tokenizer.js';
import {
  TOKENIZERS,
  type Conversation,
  type References,
  corpusTexts,
  digest,
  idDigest,
  minstd,
  readHere,
  realFolder,
} from './real.js';

const conversations = readHere<Conversation[]>('conversations.json');

afterAll(async () => rmSync(await realFolder(), { recursive: true }));

/** Which of the texts differ, as they would be given to make-references.py. */
function differing(texts: string[], isSame: (i: number) => boolean): string[] {
  return texts.filter((_, i) => !isSame(i)).map((text) => JSON.stringify(text).slice(0, 200));
}

describe.each(TOKENIZERS)('the real tokenizer %s', (name) => {
  const expected = readHere<References>(`references/${name}.golden.json`);
  let tokenizer: Tokenizer;
  let texts: string[];
  let ids: Uint32Array[];

  beforeAll(async () => {
    const folder = `${await realFolder()}/${name}`;
    expect(digest(readFileSync(`${folder}/tokenizer.json`), 64)).toBe(expected.file);
    tokenizer = await openTokenizer({ folder });
    texts = corpusTexts(tokenizer.addedTokens.filter((token) => token.special).map((token) => token.content));
    ids = await Promise.all(texts.map((text) => tokenizer.encode(text)));
  }, 120_000);
  afterAll(() => tokenizer.dispose());

  test('gives the ids of `tokenizers`, with BOS and the like and without', async () => {
    expect(texts.length).toBe(expected.cases.length);
    expect(differing(texts, (i) => idDigest(ids[i] ?? []) === expected.cases[i]?.[1])).toEqual([]);
    const plain = await Promise.all(texts.map((text) => tokenizer.encode(text, { addSpecialTokens: false })));
    expect(differing(texts, (i) => idDigest(plain[i] ?? []) === expected.cases[i]?.[2])).toEqual([]);
  });

  test('leaves special tokens text where asked, as with encode_special_tokens', async () => {
    const options = { addSpecialTokens: false, parseSpecialTokens: false };
    const literal = await Promise.all(texts.map((text) => tokenizer.encode(text, options)));
    expect(differing(texts, (i) => idDigest(literal[i] ?? []) === expected.cases[i]?.[3])).toEqual([]);
    const special = new Set(tokenizer.addedTokens.filter((token) => token.special).map((token) => token.id));
    expect(differing(texts, (i) => !(literal[i] ?? []).some((id) => special.has(id)))).toEqual([]);
  });

  test('decodes to the text of `tokenizers`, with special tokens and without', () => {
    const both = (one: Uint32Array = new Uint32Array()): string =>
      [true, false].map((skipSpecialTokens) => tokenizer.decode(one, { skipSpecialTokens })).join('\0');
    expect(differing(texts, (i) => digest(both(ids[i])) === expected.cases[i]?.[4])).toEqual([]);
  });

  test('decodes random ids to the text of `tokenizers`', () => {
    expect(tokenizer.tokenOffsets.length - 1).toBe(expected.size);
    const below = minstd();
    const { firstByte } = expected;
    const sequences = expected.decodes.map((_, i) => {
      const [first, size] = firstByte !== null && i % 3 === 0 ? [firstByte, 256] : [0, expected.size];
      const count = 1 + below(14);
      return Array.from({ length: count }, () => first + below(size));
    });
    const isSame = (one: number[], i: number): boolean =>
      digest(tokenizer.decode(one, { skipSpecialTokens: i % 2 === 0 })) === expected.decodes[i];
    expect(sequences.filter((one, i) => !isSame(one, i))).toEqual([]);
  });

  test('streams the same text, whatever tokens a character is split over', () => {
    const { tokenBytes, tokenOffsets } = tokenizer;
    const streamed = (one: Uint32Array): string => {
      const decoder = new TextDecoder('utf-8', { ignoreBOM: true });
      let text = '';
      for (const id of one) {
        text += decoder.decode(tokenBytes.subarray(tokenOffsets[id], tokenOffsets[id + 1]), { stream: true });
      }
      return text + decoder.decode();
    };
    const isSame = (i: number): boolean => {
      const one = ids[i] ?? new Uint32Array();
      const [text, whole] = [streamed(one), tokenizer.decode(one)];
      return text === whole || text === ` ${whole}`; // decoders may drop the space that encoding put in front
    };
    expect(differing(texts, isSame)).toEqual([]);
  });

  test('encodes chats as transformers, and leaves special tokens in messages text unless asked', async () => {
    const differences: string[] = [];
    for (const [i, { name: kind, messages, tools }] of conversations.entries()) {
      const wanted = expected.chats[i] ?? null;
      for (const [j, parseSpecialTokens] of [true, false].entries()) {
        const encoded = tokenizer.encodeChat(messages, { parseSpecialTokens, ...(tools && { tools }) });
        const got = await encoded.then(({ tokens }) => idDigest(tokens)).catch((error: Error) => error.message);
        if (wanted ? got !== wanted[j] : /^[0-9a-f]{12}$/.test(got)) differences.push(`${kind}: ${got}`);
      }
    }
    expect(differences).toEqual([]);
  });

  test('keeps special tokens that are spelled over several parts, roles and tools from being tokens', async () => {
    const special = tokenizer.addedTokens.filter((token) => token.special);
    const isSpecial = new Set(special.map((token) => token.id));
    const countOf = ({ tokens }: EncodedChat): number => tokens.filter((id) => isSpecial.has(id)).length;
    for (const { content } of special.slice(0, 6)) {
      for (let cut = 0; cut <= content.length; cut++) {
        const texts = [content.slice(0, cut), content.slice(cut)];
        const messagesOf = (parts: string[]): ChatMessage[] => [
          { role: 'user', content: parts.map((text) => ({ type: 'text', text })) },
        ];
        const harmless = await encodedOrNot(tokenizer, messagesOf(texts.map((text) => 'x'.repeat(text.length))));
        const got = await encodedOrNot(tokenizer, messagesOf(texts));
        expect(got && countOf(got)).toBe(harmless && countOf(harmless));
      }
    }
  });
});

/** undefined where the template refuses. */
async function encodedOrNot(tokenizer: Tokenizer, messages: ChatMessage[]): Promise<EncodedChat | undefined> {
  try {
    return await tokenizer.encodeChat(messages);
  } catch (error) {
    if (OpenLoraError.is(error) && error.code === 'ERR_CHAT_TEMPLATE') return undefined;
    throw error;
  }
}
