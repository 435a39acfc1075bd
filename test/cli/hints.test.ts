import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { CliError, UsageError, placed, reportOf } from '../../src/cli/errors.js';
import { HINTED_CODES, hintOf, quoted } from '../../src/cli/hints.js';
import { OpenLoraError } from '../../src/errors.js';

const page = readFileSync(fileURLToPath(new URL('../../docs/errors.md', import.meta.url)), 'utf8');
const codes = [...page.matchAll(/^\| `(ERR_\w+)` \|/gm)].map(([, code]) => code!);

describe('what to try next', () => {
  it('is known for every code of docs/errors.md, and for no other', () => {
    expect(codes.length).toBeGreaterThan(80);
    expect([...HINTED_CODES].sort()).toEqual([...codes].sort());
  });

  it.each(codes)('%s: one line that fits a terminal', (code) => {
    for (const hint of [hintOf(code), hintOf(code, { base: './base', adapter: './adapter', option: 'maxTokens' })]) {
      expect(hint).toMatch(/^[^\n]{3,110}$/);
    }
  });

  it('is there for errors of the system and for those that nobody knows', () => {
    expect(reportOf(Object.assign(new Error('x'), { code: 'ENOSPC' }))).toMatchObject({
      hint: expect.stringContaining('free some space'),
    });
    expect(reportOf(new Error('x'))).toMatchObject({
      code: 'ERR_UNEXPECTED',
      hint: expect.stringContaining('OPENLORA_DEBUG=1'),
    });
    expect(reportOf('x')).toMatchObject({ code: 'ERR_UNEXPECTED', hint: expect.stringContaining('report it') });
    expect(hintOf('ERR_OF_A_LATER_VERSION')).toContain('report it');
  });

  it('gives way to what the place of the error knows better', () => {
    expect(reportOf(new CliError('ERR_HUB', 'x', 'this'))).toMatchObject({ hint: 'this' });
    expect(reportOf(new UsageError('x', 'that'))).toMatchObject({ hint: 'that' });
  });

  it('names the flag, not the option of the SDK', () => {
    const error = new OpenLoraError('ERR_INVALID_OPTION', 'x', { option: 'limits.maxContext' });
    expect(reportOf(error).hint).toBe('another value for --context');
  });

  it('is a command with the folders in question, quoted for the shell', async () => {
    const fails = () => Promise.reject(new OpenLoraError('ERR_ADAPTER_SHAPE', 'x'));
    await expect(placed({ base: './my base', adapter: "./it's" }, fails)).rejects.toMatchObject({
      code: 'ERR_ADAPTER_SHAPE',
      hint: String.raw`openlora inspect './it'\''s' --base './my base'`,
    });
    expect(quoted('./plain-1.0/path')).toBe('./plain-1.0/path');
  });

  it('leaves other errors as they are', async () => {
    const error = new Error('x');
    await expect(placed({}, () => Promise.reject(error))).rejects.toBe(error);
  });
});
