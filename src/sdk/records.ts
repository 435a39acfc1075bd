// Token records as the addon packs them (layout: OnEvents in src/native/binding.ts), decoded in one pass.

import { OpenLoraError } from '../errors.js';
import { RECORD_HEADER_BYTES, RECORD_PROMPT, RECORD_TEXT, RECORD_TOKEN } from '../native/binding.js';
import type { TokenLogprob } from './request-types.js';

/** Where decoded records go, in their order. */
export interface RecordSink {
  /** A generated token, the text that it released, and its log-probability if the request asked for it. */
  onToken(request: number, token: number, text: string, logprob: TokenLogprob | undefined): void;
  onPromptLogprob(request: number, logprob: TokenLogprob): void;
  onText(request: number, text: string): void;
}

const HEADER_WORDS = RECORD_HEADER_BYTES / 4;
const HAS_LOGPROB = 1;

/** Throws ERR_INTERNAL at the first malformed record; those before it have been delivered. */
export function decodeRecords(buffer: ArrayBuffer, sink: RecordSink): void {
  if (buffer.byteLength % 4 !== 0) throw malformed(0, `${buffer.byteLength} bytes in all, not a multiple of 4`);
  const words = new Uint32Array(buffer);
  const floats = new Float32Array(buffer);
  const bytes = Buffer.from(buffer);
  let at = 0;
  while (at < words.length) {
    if (at + HEADER_WORDS > words.length)
      throw malformed(at, `${words.length - at} words left, a header has ${HEADER_WORDS}`);
    const recordBytes = words[at]!;
    const request = words[at + 1]!;
    const kind = words[at + 2]!;
    const token = words[at + 3]!;
    const topCount = words[at + 5]!;
    const textBytes = words[at + 6]!;
    const size = HEADER_WORDS + topCount * 2 + Math.ceil(textBytes / 4);
    if (recordBytes !== size * 4 || at + size > words.length) {
      throw malformed(at, `${recordBytes} bytes, its fields need ${size * 4}, ${(words.length - at) * 4} are left`);
    }
    const textAt = (at + HEADER_WORDS + topCount * 2) * 4;
    const text = textBytes === 0 ? '' : bytes.toString('utf8', textAt, textAt + textBytes);
    if (kind === RECORD_TOKEN) {
      const hasLogprob = (words[at + 7]! & HAS_LOGPROB) !== 0;
      sink.onToken(request, token, text, hasLogprob ? logprobAt(words, floats, at, token, topCount) : undefined);
    } else if (kind === RECORD_PROMPT) {
      sink.onPromptLogprob(request, logprobAt(words, floats, at, token, topCount));
    } else if (kind === RECORD_TEXT) {
      sink.onText(request, text);
    } else {
      throw malformed(at, `kind ${kind} is unknown`);
    }
    at += size;
  }
}

function logprobAt(
  words: Uint32Array,
  floats: Float32Array,
  at: number,
  token: number,
  topCount: number,
): TokenLogprob {
  const top: { token: number; logprob: number }[] = [];
  for (let i = 0, place = at + HEADER_WORDS; i < topCount; i++, place += 2) {
    top.push({ token: words[place]!, logprob: floats[place + 1]! });
  }
  return { token, logprob: floats[at + 4]!, top };
}

function malformed(at: number, what: string): OpenLoraError {
  return new OpenLoraError('ERR_INTERNAL', `token record at byte ${at * 4}: ${what}`);
}
