// Colours by node:util, decided once for each stream.

import { styleText } from 'node:util';

type Formats = Parameters<typeof styleText>[0];

type Paint = (text: string) => string;

export interface Style {
  readonly hasColour: boolean;
  bold: Paint;
  dim: Paint;
  red: Paint;
  green: Paint;
  yellow: Paint;
  cyan: Paint;
  /** For numbers that matter. */
  strong: Paint;
}

/** FORCE_COLOR goes before NO_COLOR (as in Node itself), both before what the stream is. */
export function wantsColour(env: NodeJS.ProcessEnv, isTty: boolean): boolean {
  const forced = env.FORCE_COLOR;
  if (forced !== undefined) return forced !== '0' && forced !== 'false';
  if (env.NO_COLOR || env.NODE_DISABLE_COLORS || env.TERM === 'dumb') return false;
  return isTty;
}

export function makeStyle(hasColour: boolean): Style {
  const paint = (formats: Formats) => (text: string) =>
    hasColour && text !== '' ? styleText(formats, text, { validateStream: false }) : text;
  return {
    hasColour,
    bold: paint('bold'),
    dim: paint('dim'),
    red: paint('red'),
    green: paint('green'),
    yellow: paint('yellow'),
    cyan: paint('cyan'),
    strong: paint(['bold', 'cyan']),
  };
}
