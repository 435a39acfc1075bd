import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ChatTemplates, readChatTemplates } from '../../src/formats/chat-template.js';

interface Golden {
  zone: string;
  directives: string[];
  texts: string[];
  /** What Python writes for each of `directives`, then of `texts`. */
  moments: Record<string, { moment: [number, number, number, number, number, number]; texts: string[] }>;
}
const golden = JSON.parse(readFileSync(new URL('golden/strftime.golden.json', import.meta.url), 'utf8')) as Golden;

/** All that Python documents, what glibc adds, and `-` before numbers; all else is refused. */
const LETTERS = 'aAbBcCdDeFfgGhHIjklmMnpPrRStTuUVwWxXyYzZ%';
const NUMBERS = 'CdegGHIjklmMSuUVwWyY';
const SUPPORTED = new Set([...[...LETTERS].map((one) => `%${one}`), ...[...NUMBERS].map((one) => `%-${one}`)]);

describe('strftime_now', () => {
  const { TZ } = process.env;
  beforeAll(() => void (process.env.TZ = golden.zone));
  afterAll(() => {
    if (TZ === undefined) delete process.env.TZ;
    else process.env.TZ = TZ;
  });

  test('is in local time', () => {
    expect([0, 6].map((month) => new Date(2025, month, 1).getTimezoneOffset())).toEqual([-60, -120]);
  });

  test('knows each directive of the golden file, or refuses it', () => {
    expect(golden.directives.filter((one) => SUPPORTED.has(one)).length).toBe(SUPPORTED.size);
    expect(golden.directives.length).toBeGreaterThan(400);
  });

  test.each(Object.entries(golden.moments))('at %s', (_, { moment: [year, month, ...rest], texts }) => {
    const now = new Date(year, month - 1, ...rest);
    const templates = new ChatTemplates(
      readChatTemplates({
        tokenizerConfig: undefined,
        chatTemplateJson: undefined,
        templates: { default: '{{ strftime_now(messages[0].content) }}' },
      }),
      { now: () => now },
    );
    const written = (format: string): string => templates.render([{ role: 'user', content: format }]);
    const differences: string[] = [];
    [...golden.directives, ...golden.texts].forEach((format, i) => {
      if (i < golden.directives.length && !SUPPORTED.has(format)) {
        expect(() => written(format)).toThrow(
          expect.objectContaining({
            code: 'ERR_CHAT_TEMPLATE',
            message: expect.stringContaining(`'${format.slice(0, 2)}`),
          }),
        );
        return;
      }
      const got = written(format);
      if (got !== texts[i]) differences.push(`${format}: ${JSON.stringify(got)}, wanted ${JSON.stringify(texts[i])}`);
    });
    expect(differences).toEqual([]);
  });

  test('refuses a directive that is cut off', () => {
    const templates = new ChatTemplates(
      readChatTemplates({
        tokenizerConfig: undefined,
        chatTemplateJson: undefined,
        templates: { default: '{{ strftime_now("%d %") }}' },
      }),
    );
    expect(() => templates.render([])).toThrow(expect.objectContaining({ code: 'ERR_CHAT_TEMPLATE' }));
  });
});
