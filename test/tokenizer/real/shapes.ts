// Conversations that spell a text in two halves, and what each real tokenizer's template does with them.

import type { Conversation } from './real.js';

export type Chat = Omit<Conversation, 'name'>;

const call = (name: string, args: string | Record<string, unknown>) => ({
  role: 'assistant',
  content: '',
  tool_calls: [{ id: 'abcd12345', type: 'function' as const, function: { name, arguments: args } }],
});
const tool = (name: string, description: string, properties: Record<string, unknown> = {}) => ({
  type: 'function' as const,
  function: { name, description, parameters: { type: 'object', properties } },
});
const user = (content: string) => ({ role: 'user', content });

/** By where the two halves stand. */
export const SHAPES: Readonly<Record<string, (head: string, tail: string) => Chat>> = {
  'one text': (head, tail) => ({ messages: [user(head + tail)] }),
  parts: (head, tail) => ({
    messages: [{ role: 'user', content: [head, tail].map((text) => ({ type: 'text', text })) }],
  }),
  turns: (head, tail) => ({ messages: [user(head), { role: 'assistant', content: tail }, user('z')] }),
  'messages of one role': (head, tail) => ({ messages: [user(head), user(tail)] }),
  'system and user': (head, tail) => ({ messages: [{ role: 'system', content: head }, user(tail)] }),
  'role and content': (head, tail) => ({ messages: [user('x'), { role: head, content: tail }, user('z')] }),
  'a tool and its description': (head, tail) => ({ messages: [user('x')], tools: [tool(head, tail)] }),
  'a parameter and its description': (head, tail) => ({
    messages: [user('x')],
    tools: [tool('f', 'd', { [head]: { type: 'string', description: tail } })],
  }),
  'a call and its arguments': (head, tail) => ({
    messages: [
      user('x'),
      call(head, { q: tail }),
      { role: 'tool', content: 'r', tool_call_id: 'abcd12345' },
      { role: 'assistant', content: 'a' },
      user('z'),
    ],
    tools: [tool('f', 'd')],
  }),
  'result and answer': (head, tail) => ({
    messages: [
      user('x'),
      call('f', { q: 1 }),
      { role: 'tool', content: head, tool_call_id: 'abcd12345' },
      { role: 'assistant', content: tail },
      user('z'),
    ],
    tools: [tool('f', 'd')],
  }),
};

/** What each template takes: least numbers of conversations, and where it shows what. */
export interface Taken {
  /** Of readConversations. */
  chats: number;
  /** Of spelled.json, and how many of them have special tokens where it is asked for. */
  spelled: [count: number, differing: number];
  /** The shapes of which it shows both halves; it refuses the others, or passes over them. */
  shown: string[];
}

export const TAKEN: Readonly<Record<string, Taken>> = {
  llama31: {
    chats: 61,
    spelled: [14, 12],
    shown: [
      'one text',
      'parts',
      'turns',
      'messages of one role',
      'system and user',
      'role and content',
      'a tool and its description',
      'a parameter and its description',
      'a call and its arguments',
      'result and answer',
    ],
  },
  gemma3: { chats: 40, spelled: [10, 8], shown: ['one text', 'parts', 'turns', 'system and user', 'role and content'] },
  qwen3: {
    chats: 49,
    spelled: [13, 9],
    shown: [
      'one text',
      'turns',
      'messages of one role',
      'system and user',
      'a tool and its description',
      'a parameter and its description',
      'a call and its arguments',
      'result and answer',
    ],
  },
  llama2: { chats: 36, spelled: [9, 5], shown: ['one text', 'turns', 'system and user'] },
  gptoss: {
    chats: 64,
    spelled: [14, 12],
    shown: [
      'one text',
      'parts',
      'turns',
      'messages of one role',
      'system and user',
      'role and content',
      'a tool and its description',
      'a parameter and its description',
      'result and answer',
    ],
  },
  nemo: {
    chats: 48,
    spelled: [8, 7],
    shown: [
      'one text',
      'turns',
      'system and user',
      'a tool and its description',
      'a parameter and its description',
      'a call and its arguments',
      'result and answer',
    ],
  },
  mistral: { chats: 23, spelled: [5, 4], shown: ['one text', 'turns'] },
  phi3: { chats: 49, spelled: [13, 5], shown: ['one text', 'turns', 'messages of one role', 'system and user'] },
  digits: {
    chats: 64,
    spelled: [14, 11],
    shown: [
      'one text',
      'parts',
      'turns',
      'messages of one role',
      'system and user',
      'role and content',
      'result and answer',
    ],
  },
  cl100k: {
    chats: 61,
    spelled: [14, 12],
    shown: [
      'one text',
      'parts',
      'turns',
      'messages of one role',
      'system and user',
      'role and content',
      'a tool and its description',
      'a parameter and its description',
      'a call and its arguments',
      'result and answer',
    ],
  },
  deepseek: {
    chats: 61,
    spelled: [14, 12],
    shown: [
      'one text',
      'parts',
      'turns',
      'messages of one role',
      'system and user',
      'role and content',
      'a tool and its description',
      'a parameter and its description',
      'a call and its arguments',
      'result and answer',
    ],
  },
};
