import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { filesUnder } from '../../scripts/files.mjs';

export const root = fileURLToPath(new URL('../..', import.meta.url));

export interface Source {
  /** Below the repository's root, with '/'. */
  path: string;
  text: string;
}

/** A rule finds offences, `path:line: what`, in the files that it is given. */
export interface Rule {
  /** A sentence. */
  name: string;
  check(files: readonly Source[]): string[];
  /** Each of these sets alone must offend; the test fails otherwise. */
  offending: readonly (readonly Source[])[];
  /** Nothing here may offend. */
  fine: readonly Source[];
}

export const source = (path: string, ...lines: string[]): Source => ({ path, text: `${lines.join('\n')}\n` });

const folders = ['cpp', 'cuda', 'src', 'test', 'bench', 'scripts', 'demo', 'cmake'];
const code = /\.(cc|h|cu|cuh|ts|mts|cts|js|mjs|cjs|py|cmake)$/;

/** All code of the repository. Fixtures of these rules live in this folder and are no code. */
export function repositorySources(): Source[] {
  return folders
    .flatMap((folder) => filesUnder(folder, code))
    .filter((path) => !path.startsWith('test/tidy/'))
    .map((path) => ({ path, text: readFileSync(`${root}/${path}`, 'utf8') }));
}

/** Offences of a test on each line. */
export function offendingLines(file: Source, offence: (line: string) => string | undefined): string[] {
  return file.text.split('\n').flatMap((line, index) => {
    const what = offence(line);
    return what === undefined ? [] : [`${file.path}:${index + 1}: ${what}`];
  });
}

export const isCpp = ({ path }: Source): boolean => /^cpp\/.*\.(cc|h)$/.test(path);
export const isSrc = ({ path }: Source): boolean => /^src\/.*\.ts$/.test(path);
