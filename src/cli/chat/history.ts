// The lines that were typed in earlier sessions: a file of the user's own, one line each, oldest first.

import { appendFileSync, chmodSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { dirname, isAbsolute, join } from 'node:path';

export const HISTORY_LINES_MAX = 1_000;
/** Longer lines are not kept. */
const LINE_CHARS_MAX = 4_096;
const OWNER_ONLY = 0o600;

/** In the state folder of the XDG base directory specification, where relative paths don't count. */
export function historyPath(env: NodeJS.ProcessEnv): string {
  const given = env.XDG_STATE_HOME;
  const usual = join(env.HOME || homedir(), '.local', 'state');
  return join(given !== undefined && isAbsolute(given) ? given : usual, 'openlora', 'chat-history');
}

/** Never throws: a chat without a history is still a chat. */
export class History {
  /** Newest first, as Readline wants them. */
  readonly lines: string[] = [];
  /** Why nothing is kept. */
  problem: string | undefined;

  constructor(private readonly path: string) {
    this.#attempt(() => {
      mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
      // Creates it, too, and sessions that run at once append whole lines.
      appendFileSync(path, '', { mode: OWNER_ONLY });
      chmodSync(path, OWNER_ONLY);
      const all = readFileSync(path, 'utf8')
        .split('\n')
        .filter((line) => line !== '');
      const kept = all.slice(-HISTORY_LINES_MAX);
      if (kept.length < all.length) this.#replace(kept);
      this.lines.push(...kept.reverse());
    });
  }

  /** Lines that begin with a space are not kept, as in shells. */
  add(given: string): void {
    const line = given.trimEnd();
    if (this.problem !== undefined || line === '' || line.startsWith(' ')) return;
    if (line.length > LINE_CHARS_MAX || /\p{Cc}/u.test(line) || line === this.lines[0]) return;
    this.lines.unshift(line);
    this.#attempt(() => appendFileSync(this.path, `${line}\n`, { mode: OWNER_ONLY }));
  }

  #replace(lines: string[]): void {
    const fresh = `${this.path}.${process.pid}`;
    writeFileSync(fresh, lines.map((line) => `${line}\n`).join(''), { mode: OWNER_ONLY });
    renameSync(fresh, this.path);
  }

  #attempt(action: () => void): void {
    try {
      action();
    } catch (error) {
      this.problem = (error as Error).message;
    }
  }
}
