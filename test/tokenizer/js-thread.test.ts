import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { Worker } from 'node:worker_threads';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { openTokenizer } from '../../src/formats/tokenizer.js';
import { buildTokenizerWorker } from './build-worker.js';

const folder = mkdtempSync(join(tmpdir(), 'openlora-big-'));
const TOKENS = 150_000;

/** A byte-level tokenizer of a real one's size: each token but the first ones merges two older ones. */
function bigTokenizer(): object {
  const characters = Array.from({ length: 256 }, (_, b) => {
    const isPlain = (b > 32 && b < 127) || (b > 160 && b < 173) || b > 173;
    return isPlain ? String.fromCharCode(b) : undefined;
  });
  let next = 256;
  const tokens = characters.map((character) => character ?? String.fromCharCode(next++));
  const seen = new Set(tokens);
  const merges: [string, string][] = [];
  let state = 1;
  const random = (n: number): number => (state = (state * 48271) % 0x7fffffff) % n;
  while (tokens.length < TOKENS) {
    const pair: [string, string] = [tokens[random(tokens.length)] ?? '', tokens[random(256)] ?? ''];
    const merged = pair.join('');
    if (merged.length > 12 || seen.has(merged)) continue;
    seen.add(merged);
    tokens.push(merged);
    merges.push(pair);
  }
  return {
    added_tokens: [{ id: TOKENS, content: '<s>', special: true, normalized: false }],
    pre_tokenizer: { type: 'ByteLevel', add_prefix_space: false, use_regex: true },
    decoder: { type: 'ByteLevel' },
    model: { type: 'BPE', vocab: Object.fromEntries(tokens.map((token, id) => [token, id])), merges },
  };
}

beforeAll(async () => {
  await buildTokenizerWorker();
  writeFileSync(join(folder, 'tokenizer.json'), JSON.stringify(bigTokenizer()));
  writeFileSync(
    join(folder, 'chat_template.jinja'),
    '{% for m in messages %}<s>{{ m.role }}: {{ m.content }}\n{% endfor %}',
  );
}, 60_000);
afterAll(() => rmSync(folder, { recursive: true }));

/** Milliseconds that `call` holds this thread; what it returns is awaited afterwards. */
async function heldMs(call: () => unknown): Promise<number> {
  const start = performance.now();
  const result = call();
  const held = performance.now() - start;
  await result;
  return held;
}

async function measure(): Promise<{ loopP99: number; calls: Record<string, number[]> }> {
  const delay = monitorEventLoopDelay({ resolution: 1 });
  const calls: Record<string, number[]> = { open: [], encode: [], encodeChat: [], decode: [], renderChat: [] };
  delay.enable();
  const opening: { tokenizer?: Awaited<ReturnType<typeof openTokenizer>> } = {};
  calls.open?.push(await heldMs(() => openTokenizer({ folder }).then((tokenizer) => (opening.tokenizer = tokenizer))));
  const { tokenizer } = opening;
  if (!tokenizer) throw new Error('not opened');
  const text = 'The quick brown fox jumps over the lazy dog, 12345 times — naïve café 🦊.\n'.repeat(100);
  const messages = [{ role: 'user', content: text }];
  const ids = await tokenizer.encode(text);
  for (let i = 0; i < 30; i++) {
    calls.encode?.push(await heldMs(() => tokenizer.encode(text)));
    calls.encodeChat?.push(await heldMs(() => tokenizer.encodeChat(messages)));
    calls.decode?.push(await heldMs(() => tokenizer.decode(ids.subarray(0, 2000))));
    calls.renderChat?.push(await heldMs(() => tokenizer.renderChat(messages)));
  }
  delay.disable();
  await tokenizer.dispose();
  return { loopP99: delay.percentile(99) / 1e6, calls };
}

/** What the loop's delay is on this machine now while another thread computes: the share that isn't ours. */
async function backgroundP99(): Promise<number> {
  const delay = monitorEventLoopDelay({ resolution: 1 });
  const busy = new Worker('for (const end = Date.now() + 1000; Date.now() < end; );', { eval: true });
  delay.enable();
  await new Promise((resolve) => busy.once('exit', resolve));
  delay.disable();
  return delay.percentile(99) / 1e6;
}

test('a tokenizer of 150,000 tokens loads and works without holding the JS thread', { timeout: 120_000 }, async () => {
  const median = (values: number[] = []): number => [...values].sort((a, b) => a - b)[values.length >> 1] ?? NaN;
  const attempts: object[] = [];
  const isWithin = async (): Promise<boolean> => {
    const background = await backgroundP99();
    const { loopP99, calls } = await measure();
    const ms = Object.fromEntries(Object.entries(calls).map(([name, held]) => [name, median(held)]));
    attempts.push({ background, loopP99, ...ms });
    const { open = NaN, encode = NaN, encodeChat = NaN, decode = NaN, renderChat = NaN } = ms;
    // Starting a thread is the one call that takes Node milliseconds; it happens once.
    return open <= 10 && [encode, encodeChat, decode, renderChat].every((t) => t <= 1) && loopP99 <= 5 + 2 * background;
  };
  const isAnyWithin = (await isWithin()) || (await isWithin()) || (await isWithin());
  expect(isAnyWithin, JSON.stringify(attempts)).toBe(true);
});
