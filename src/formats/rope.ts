// Inverse frequencies of rotary embeddings, as transformers' modeling_rope_utils.py (5.23) computes them, float32 step
// by float32 step: an angle is position × frequency, so one ulp here is 1e-7 × position there. `f` marks each rounding
// that torch does. Powers may differ from torch's by an ulp: its vectorised powf isn't correctly rounded.

import { OpenLoraError } from '../errors.js';
import { COUNT_MAX, type ConfigReader } from './config-reader.js';

const f = Math.fround;

export const ROPE_TYPES = ['default', 'linear', 'dynamic', 'yarn', 'llama3', 'longrope'] as const;

export interface RopeTable {
  /** `rotaryDim / 2` values. */
  invFreq: Float32Array;
  /** LongRoPE: those of sequences of more than `switch` tokens; else empty. */
  longInvFreq: Float32Array;
  /** Multiplies cos and sin. */
  factor: number;
  /** Positions up to which the table is meant to be used. */
  context: number;
  /** LongRoPE: tokens of a sequence from which on it uses `longInvFreq`, less one; else 0. */
  switch: number;
}

export interface RopeOptions {
  headDim: number;
  /** `max_position_embeddings`. */
  context: number;
  /** Of `rope_theta`; default 10,000. */
  thetaDefault?: number;
  /** Whether a part of each head may stay as it is (`partial_rotary_factor`). */
  canBePartial?: boolean;
  /** Of `original_max_position_embeddings`, where it isn't `context`. */
  originalDefault?: number;
  /** What the family calls a type otherwise than the others. */
  aliases?: Readonly<Record<string, string>>;
}

/**
 * Reads the rotary settings in every spelling: `rope_theta` at the top or in `rope_parameters`; `rope_scaling` (old)
 * or `rope_parameters` (new), with `rope_type` or `type`. Throws ERR_BASE_ROPE for a type or setting that isn't
 * supported.
 */
export function readRope(config: ConfigReader, o: RopeOptions): RopeTable {
  // transformers: `rope_scaling or rope_parameters`, where an empty object counts as nothing.
  const old = config.child('rope_scaling');
  const settings = old && Object.keys(old.object).length > 0 ? old : config.child('rope_parameters');
  const theta =
    settings?.get('rope_theta') === undefined
      ? config.positive('rope_theta', o.thetaDefault ?? 10_000)
      : settings.positive('rope_theta');
  return readRopeSettings(settings, theta, config, o);
}

/** The same where `settings` (a `rope_scaling`, or none) and `theta` have been found. */
export function readRopeSettings(
  settings: ConfigReader | undefined,
  theta: number,
  config: ConfigReader,
  o: RopeOptions,
): RopeTable {
  const table = computeTable(settings, theta, config, o);
  // A logarithm of a negative `beta_fast`, say.
  if ([...table.invFreq, ...table.longInvFreq, f(table.factor)].every(Number.isFinite)) return table;
  throw ropeError(`${JSON.stringify(settings?.object ?? { rope_theta: theta })} gives frequencies that are no numbers`);
}

function computeTable(
  settings: ConfigReader | undefined,
  theta: number,
  config: ConfigReader,
  o: RopeOptions,
): RopeTable {
  const given = settings?.string('rope_type', settings.string('type', 'default')) ?? 'default';
  const type = o.aliases?.[given] ?? given;
  const nested =
    settings &&
    Object.entries(settings.object).find(([, v]) => typeof v === 'object' && v !== null && !Array.isArray(v));
  if (nested) throw ropeError(`${nested[0]}: rotary settings per layer type are not supported`);
  const { context } = o;
  const dim = rotaryDim(settings, config, o);
  const table = (invFreq: Float32Array): RopeTable => ({ ...PLAIN, invFreq, context });
  if (type === 'default' || !settings) return table(inverse(powers(theta, dim)));
  switch (type) {
    case 'linear':
      return table(linear(theta, dim, settings.positive('factor')));
    case 'dynamic':
      return table(dynamic(theta, dim, settings.positive('factor')));
    case 'yarn':
      return yarn(theta, dim, context, settings, config);
    case 'llama3':
      return table(llama3(theta, dim, context, settings, config));
    case 'longrope':
      return longRope(theta, dim, settings, config, o);
    default:
      throw ropeError(`rope type ${type} is not supported; supported are ${ROPE_TYPES.join(', ')}`);
  }
}

const PLAIN = { longInvFreq: new Float32Array(0), factor: 1, switch: 0 } as const;

function rotaryDim(settings: ConfigReader | undefined, config: ConfigReader, o: RopeOptions): number {
  const partial = settings?.get('partial_rotary_factor') ?? config.get('partial_rotary_factor') ?? 1;
  if (partial === 1) return o.headDim;
  if (!o.canBePartial) throw ropeError(`partial_rotary_factor ${JSON.stringify(partial)} is not supported, only 1`);
  const dim = typeof partial === 'number' ? Math.trunc(o.headDim * partial) : NaN;
  if (!(dim >= 2 && dim <= o.headDim && dim % 2 === 0)) {
    throw ropeError(`partial_rotary_factor ${JSON.stringify(partial)} of ${o.headDim} is no even dimension`);
  }
  return dim;
}

/**
 * LongRoPE: Ding et al. 2024, arXiv:2402.13753. transformers rotates all positions of a sequence by the long factors as
 * soon as it is longer than the original context, and computes what it has of it anew.
 */
function longRope(theta: number, dim: number, o: ConfigReader, config: ConfigReader, r: RopeOptions): RopeTable {
  const original = originalContext(r.originalDefault ?? r.context, o, config);
  const factor = o.get('factor') === undefined ? r.context / original : o.positive('factor');
  const inferred = factor <= 1 ? 1 : Math.sqrt(1 + Math.log(factor) / Math.log(original));
  const attentionFactor = o.positive('attention_factor', inferred);
  const frequencies = powers(theta, dim);
  const scaled = (key: string) => {
    const factors = o.get(key);
    if (!Array.isArray(factors) || !factors.every((v) => typeof v === 'number' && v > 0 && Number.isFinite(v)))
      throw ropeError(`${key} is not a list of numbers over 0`);
    if (factors.length !== dim / 2) throw ropeError(`${key} has ${factors.length} numbers, ${dim / 2} are needed`);
    return frequencies.map((value, i) => 1 / f(f(factors[i] as number) * value));
  };
  const [invFreq, longInvFreq] = [scaled('short_factor'), scaled('long_factor')];
  const isLonger = r.context > original;
  return {
    invFreq,
    longInvFreq: isLonger ? longInvFreq : PLAIN.longInvFreq,
    factor: attentionFactor,
    context: r.context,
    switch: isLonger ? original : 0,
  };
}

/** theta ** (2i / dim). torch rounds the scalar base to float32 before the power. */
function powers(theta: number, dim: number): Float32Array {
  return Float32Array.from({ length: dim / 2 }, (_, i) => Math.pow(f(theta), f((2 * i) / dim)));
}

function inverse(frequencies: Float32Array): Float32Array {
  return frequencies.map((value) => 1 / value);
}

function linear(theta: number, dim: number, factor: number): Float32Array {
  return inverse(powers(theta, dim)).map((value) => value / f(factor));
}

/**
 * NTK: transformers grows the base once a sequence is longer than max_position_embeddings. Here no sequence can be, so
 * this is exact: its formula at that length.
 */
function dynamic(theta: number, dim: number, factor: number): Float32Array {
  const base = theta * (factor - (factor - 1)) ** (dim / (dim - 2));
  return inverse(powers(base, dim));
}

/** YaRN: Peng et al. 2023, arXiv:2309.00071. */
function yarn(theta: number, dim: number, context: number, o: ConfigReader, config: ConfigReader): RopeTable {
  const original = originalContext(context, o, config);
  const factor = o.get('factor') === undefined ? context / original : o.positive('factor');
  const mscale = o.number('mscale', 0);
  const mscaleAllDim = o.number('mscale_all_dim', 0);
  const scaled = mscale !== 0 && mscaleAllDim !== 0;
  const inferred = scaled ? yarnScale(factor, mscale) / yarnScale(factor, mscaleAllDim) : yarnScale(factor, 1);
  const attentionFactor = o.number('attention_factor', inferred);
  const [low, high] = yarnRange(theta, dim, original, o);

  const frequencies = powers(theta, dim);
  const invFreq = frequencies.map((frequency, i) => {
    const ramp = Math.min(1, Math.max(0, f(f(i - f(low)) / f(high - low))));
    const extrapolation = f(1 - ramp);
    const interpolated = f(1 / f(f(factor) * frequency));
    return f(interpolated * f(1 - extrapolation)) + f(f(1 / frequency) * extrapolation);
  });
  // Qwen2.5's recipe adds YaRN to a config and leaves max_position_embeddings as it was trained.
  const stretched = o.get('original_max_position_embeddings') === undefined ? context : Math.floor(original * factor);
  if (stretched > COUNT_MAX)
    throw ropeError(`factor ${factor} makes a context of ${stretched}, ${COUNT_MAX} is the most`);
  return { ...PLAIN, invFreq, factor: attentionFactor, context: Math.max(context, stretched) };
}

function yarnScale(factor: number, mscale: number): number {
  return factor <= 1 ? 1 : 0.1 * mscale * Math.log(factor) + 1;
}

/** First and last dimension of the ramp between extrapolation and interpolation. */
function yarnRange(theta: number, dim: number, original: number, o: ConfigReader): [number, number] {
  const betaFast = o.number('beta_fast', 0) || 32; // transformers: `get("beta_fast") or 32`
  const betaSlow = o.number('beta_slow', 0) || 1;
  const dimensionOf = (rotations: number) =>
    (dim * Math.log(original / (rotations * 2 * Math.PI))) / (2 * Math.log(theta));
  let low = dimensionOf(betaFast);
  let high = dimensionOf(betaSlow);
  if (o.boolean('truncate', true)) {
    low = Math.floor(low);
    high = Math.ceil(high);
  }
  low = Math.max(low, 0);
  high = Math.min(high, dim - 1);
  return [low, low === high ? high + 0.001 : high];
}

/** Llama 3.1: long waves are divided by the factor, short ones kept, those between interpolated. */
function llama3(theta: number, dim: number, context: number, o: ConfigReader, config: ConfigReader): Float32Array {
  const factor = o.positive('factor');
  const lowFactor = o.positive('low_freq_factor');
  const highFactor = o.positive('high_freq_factor');
  const original = originalContext(context, o, config);
  return inverse(powers(theta, dim)).map((inv) => {
    const wavelength = f(f(2 * Math.PI) / inv);
    if (wavelength > f(original / lowFactor)) return inv / f(factor);
    if (wavelength < f(original / highFactor)) return inv;
    const smooth = f(f(f(f(original) / wavelength) - f(lowFactor)) / f(highFactor - lowFactor));
    return f(f(f(1 - smooth) * inv) / f(factor)) + f(smooth * inv);
  });
}

/** Positions of pretraining: a key beside the settings goes before one in them, as in transformers. */
function originalContext(context: number, o: ConfigReader, config: ConfigReader): number {
  const key = 'original_max_position_embeddings';
  return config.get(key) === undefined ? o.count(key, context) : config.count(key);
}

function ropeError(message: string): OpenLoraError {
  return new OpenLoraError('ERR_BASE_ROPE', message);
}
