import { readFileSync, rmSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { OpenLoraError } from '../../../src/errors.js';
import { openTokenizer, type EncodedChat, type Tokenizer } from '../../../src/formats/tokenizer.js';
import {
  TOKENIZERS,
  type ChatIds,
  type Conversation,
  type References,
  corpusTexts,
  digest,
  idDigest,
  longTexts,
  minstd,
  readConversations,
  readHere,
  realFolder,
  spelledConversations,
} from './real.js';
import { SHAPES, TAKEN, type Chat } from './shapes.js';

const conversations = readConversations();
const long = longTexts();

afterAll(async () => rmSync(await realFolder(), { recursive: true }));

/** Which of the texts differ, as they would be given to make-references.py. */
function differing(texts: string[], isSame: (i: number) => boolean): string[] {
  return texts.filter((_, i) => !isSame(i)).map((text) => JSON.stringify(text).slice(0, 200));
}

describe.each(TOKENIZERS)('the real tokenizer %s', (name) => {
  const expected = readHere<References>(`references/${name}.golden.json`);
  const taken = TAKEN[name]!;
  let tokenizer: Tokenizer;
  let template: string;
  let texts: string[];
  let ids: Uint32Array[];

  beforeAll(async () => {
    const folder = `${await realFolder()}/${name}`;
    expect(digest(readFileSync(`${folder}/tokenizer.json`), 64)).toBe(expected.file);
    tokenizer = await openTokenizer({ folder });
    template = readFileSync(`${folder}/chat_template.jinja`, 'utf8');
    texts = corpusTexts(special());
    ids = await Promise.all(texts.map((text) => tokenizer.encode(text)));
  }, 120_000);
  afterAll(() => tokenizer.dispose());

  const special = (): string[] => tokenizer.addedTokens.filter((token) => token.special).map((token) => token.content);

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

  test('gives the ids and the text of `tokenizers` for repeats of 100,000 and for 50 kB of prose, code and CJK', async () => {
    expect(long.length).toBe(expected.long.length);
    for (const [i, text] of long.entries()) {
      const one = await tokenizer.encode(text);
      const got = [one.length, idDigest(one), digest(tokenizer.decode(one))];
      expect(got, JSON.stringify(text.slice(0, 20))).toEqual(expected.long[i]);
    }
  });

  /** What differs of those that are rendered, and how many these are. */
  async function compareChats(all: Conversation[], wanted: ChatIds[]): Promise<[differences: string[], count: number]> {
    expect(wanted.length).toBe(all.length);
    const differences: string[] = [];
    for (const [i, { name: kind, messages, tools }] of all.entries()) {
      for (const [j, parseSpecialTokens] of [true, false].entries()) {
        const encoded = tokenizer.encodeChat(messages, { parseSpecialTokens, ...(tools && { tools }) });
        const got = await encoded.then(({ tokens }) => idDigest(tokens)).catch(codeOfRefusal);
        if (got !== (wanted[i]?.[j] ?? 'ERR_CHAT_TEMPLATE')) differences.push(`${kind}: ${got}`);
      }
    }
    return [differences, wanted.filter((ids) => ids !== null).length];
  }

  test('encodes chats as transformers, and leaves special tokens in messages text unless asked', async () => {
    const [differences, count] = await compareChats(conversations, expected.chats);
    expect(differences).toEqual([]);
    expect(count).toBeGreaterThanOrEqual(taken.chats);
  });

  test('leaves its own special tokens text wherever a conversation has them, also in halves', async () => {
    const all = spelledConversations(special(), template);
    const [differences, count] = await compareChats(all, expected.spelled);
    expect(differences).toEqual([]);
    expect(count).toBeGreaterThanOrEqual(taken.spelled[0]);
    // Where the template shows them they would be tokens, if it were asked for.
    const differing = expected.spelled.filter((ids) => ids && ids[0] !== ids[1]).length;
    expect(differing).toBeGreaterThanOrEqual(taken.spelled[1]);
  });

  test('keeps special tokens that are spelled over parts, turns, roles and tools from being tokens', async () => {
    const isSpecial = new Set(tokenizer.addedTokens.filter((token) => token.special).map((token) => token.id));
    const countOf = ({ tokens }: EncodedChat): number => tokens.filter((id) => isSpecial.has(id)).length;
    const own = special().sort((a, b) => Number(template.includes(b)) - Number(template.includes(a)));
    const shown: string[] = [];
    for (const [shape, conversationOf] of Object.entries(SHAPES)) {
      const harmless = await encodedOrNot(tokenizer, conversationOf('QxqA', 'QxqB'));
      if (!harmless?.text.includes('QxqA') || !harmless.text.includes('QxqB')) continue;
      shown.push(shape);
      for (const content of own.slice(0, 4)) {
        for (let cut = 0; cut <= content.length; cut++) {
          const halves = [`x${content.slice(0, cut)}`, `${content.slice(cut)}y`] as const;
          const got = await tokenizer.encodeChat(...argumentsOf(conversationOf(...halves)));
          expect(countOf(got), `${shape}: ${content} at ${cut}`).toBe(countOf(harmless));
        }
      }
    }
    expect(shown).toEqual(taken.shown);
  });
});

/** undefined where the template refuses. */
async function encodedOrNot(tokenizer: Tokenizer, conversation: Chat): Promise<EncodedChat | undefined> {
  try {
    return await tokenizer.encodeChat(...argumentsOf(conversation));
  } catch (error) {
    if (OpenLoraError.is(error) && error.code === 'ERR_CHAT_TEMPLATE') return undefined;
    throw error;
  }
}

function argumentsOf({ messages, tools }: Chat): Parameters<Tokenizer['encodeChat']> {
  return [messages, tools ? { tools } : {}];
}

function codeOfRefusal(error: unknown): string {
  if (!OpenLoraError.is(error)) throw error;
  return error.code;
}
