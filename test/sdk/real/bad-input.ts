// What the tables of bad input stand on.

import type { Base } from '../../../src/index.js';
import type { Neighbours } from './neighbour.js';
import type { TinyCheckpoint } from './tiny-checkpoint.js';

export interface Room {
  base: Base;
  neighbours: Neighbours;
}

/** A base with the adapters 'good' and, for tenant 'a', 'owned'; and what bad input is made of. */
export interface Stage extends Room {
  /** Another base, loaded with `strictBase`. */
  strict: Room;
  files: TinyCheckpoint;
  /** Folder of an adapter for a base of other sizes. */
  otherAdapter: string;
}

/** `says`: what, what was got, what was wanted. `where`: the base that it is done to and whose neighbours listen. */
export type BadInput = [
  name: string,
  code: string,
  says: RegExp,
  attempt: (stage: Stage) => Promise<unknown>,
  where?: 'strict',
];
