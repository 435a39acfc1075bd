// Which modules of a base an adapter acts on, with which rank and scale: PEFT's check_target_module_exists
// (tuners_utils.py) and get_pattern_key (utils/other.py), 0.21.
//
// | code                       | meaning                                                                            |
// |----------------------------|------------------------------------------------------------------------------------|
// | ERR_ADAPTER_TARGETS        | no module of the base is named, or one that LoRA can't act on                      |
// | ERR_ADAPTER_LAYER          | a layer that the base doesn't have                                                 |

import { OpenLoraError } from '../errors.js';
import { fusedOtherwise } from './adapter-names.js';
import type { Pacer } from './pacer.js';
import type { LoraConfig } from './peft.js';
import { PythonRegex } from './python-regex.js';
import type { BaseFolder, BaseSite, FormatWarning } from './types.js';

export interface TargetSite {
  site: BaseSite;
  rank: number;
  /** alpha / rank, or alpha / sqrt(rank). */
  scale: number;
}

type TargetBase = Pick<BaseFolder, 'sites' | 'modules' | 'linearModules' | 'spec'>;
type NameTest = (name: string) => boolean;

/** The sites in the order of their numbers. Throws the codes above and ERR_ADAPTER_PATTERN. */
export async function resolveTargets(
  config: LoraConfig,
  base: TargetBase,
  warnings: FormatWarning[],
  pacer: Pacer,
): Promise<TargetSite[]> {
  checkLayers(config, base.spec.layers);
  const isTarget = targetTest(config, base);
  const isExcluded = namesTest(config.excludes);
  const isInLayers = layersTest(config);
  // PEFT looks at the layers of names that match by their end, not of those that are given in full.
  const inFull = new Set(typeof config.targets === 'string' ? [] : config.targets);
  const rankOf = patternLookup(config.rankPattern, config.rank);
  const alphaOf = patternLookup(config.alphaPattern, config.alpha);
  const siteOf = new Map(base.sites.map((site) => [site.name, site]));
  const found: TargetSite[] = [];
  for (const name of base.modules) {
    if (pacer.isDue) await pacer.rest();
    if (isExcluded(name) || !isTarget(name) || !(inFull.has(name) || isInLayers(name))) continue;
    const site = siteOf.get(name);
    if (!site) throw error('TARGETS', `target_modules names ${name}, which is not a linear layer or embedding`, name);
    const rank = rankOf(name);
    const alpha = alphaOf(name);
    found.push({ site, rank, scale: alpha / (config.isRankStabilized ? Math.sqrt(rank) : rank) });
  }
  if (found.length === 0) {
    const what = `target_modules ${shown(config.targets)} names no module of the base`;
    throw error('TARGETS', [what, ...fusedTargets(config, base)].join('; '));
  }
  warnUnmatched(config, base, warnings);
  return found.sort((a, b) => a.site.site - b.site.site);
}

function targetTest(config: LoraConfig, base: TargetBase): NameTest {
  const { targets } = config;
  if (typeof targets === 'string' && targets.toLowerCase() === 'all-linear') {
    const linear = new Set(base.linearModules);
    return (name) => linear.has(name);
  }
  return namesTest(targets);
}

/** A list: the name itself or what follows a dot in it. A string: a pattern for the whole name. */
function namesTest(names: string[] | string): NameTest {
  if (typeof names === 'string') {
    if (names === '') return () => false;
    const regex = new PythonRegex(names);
    return (name) => regex.fullMatch(name);
  }
  const set = new Set(names);
  return (name) => {
    if (set.has(name)) return true;
    for (let dot = name.indexOf('.'); dot >= 0; dot = name.indexOf('.', dot + 1)) {
      if (set.has(name.slice(dot + 1))) return true;
    }
    return false;
  };
}

function layersTest(config: LoraConfig): NameTest {
  if (!config.layers) return () => true;
  const layers = new Set(config.layers);
  const patterns = config.layersPatterns.length > 0 ? config.layersPatterns : ['[^.]*'];
  // `[^.]*` alone must follow a dot in PEFT's pattern; for the names of a decoder that is the same.
  const regexes = patterns.map((pattern) => new PythonRegex(`(?:^|.*?\\.)${pattern}\\.\\d+\\..*`));
  return (name) => {
    const number = /\.(\d+)\./.exec(name);
    return number !== null && layers.has(Number(number[1])) && regexes.some((regex) => regex.fullMatch(name));
  };
}

const PLAIN_KEY = /^\^?[\w.]+$/;

/** The value of the first pattern that matches, as a whole or after a dot: `re.match(rf"(.*\.)?({key})$", name)`. */
function patternLookup(patterns: [string, number][], fallback: number): (name: string) => number {
  const tests = patterns.map(([key, value]) => [suffixTest(key), value] as const);
  return (name) => tests.find(([test]) => test(name))?.[1] ?? fallback;
}

function suffixTest(key: string): NameTest {
  // Nearly every key is a module's name, perhaps thousands of them; a dot in it means any character.
  if (!PLAIN_KEY.test(key)) {
    const regex = new PythonRegex(`(.*\\.)?(${key})`);
    return (name) => regex.fullMatch(name);
  }
  const isWhole = key.startsWith('^');
  const text = isWhole ? key.slice(1) : key;
  return (name) => {
    const begin = name.length - text.length;
    if (begin < 0 || (begin > 0 && (isWhole || name[begin - 1] !== '.'))) return false;
    for (let i = text.length - 1; i >= 0; i--) {
      if (text[i] !== '.' && text[i] !== name[begin + i]) return false;
    }
    return true;
  };
}

function checkLayers(config: LoraConfig, layers: number): void {
  const outside = (config.layers ?? []).find((layer) => layer < 0 || layer >= layers);
  if (outside !== undefined)
    throw error('LAYER', `layers_to_transform has layer ${outside}, the base has 0 to ${layers - 1}`);
  if (typeof config.targets === 'string') return;
  for (const name of config.targets) {
    const number = /(?:^|\.)layers\.(\d+)\./.exec(name);
    if (number && Number(number[1]) >= layers) {
      throw error('LAYER', `target_modules names ${name}, the base has layers 0 to ${layers - 1}`, name);
    }
  }
}

/** PEFT passes over names that match nothing; the user hears of them. */
function warnUnmatched(config: LoraConfig, base: TargetBase, warnings: FormatWarning[]): void {
  if (typeof config.targets === 'string') return;
  const suffixes = new Set<string>();
  for (const { name } of base.sites) {
    suffixes.add(name);
    for (let dot = name.indexOf('.'); dot >= 0; dot = name.indexOf('.', dot + 1)) suffixes.add(name.slice(dot + 1));
  }
  const lost = config.targets.filter((name) => !suffixes.has(name));
  if (lost.length === 0) return;
  const what = `target_modules: no module of the base is named ${lost.slice(0, 8).join(', ')}`;
  warnings.push({ code: 'WARN_ADAPTER_TARGET', message: [what, ...fusedTargets(config, base)].join('; ') });
}

/** Of names in a list that the base fuses, or has apart. */
function fusedTargets({ targets }: LoraConfig, { sites }: TargetBase): string[] {
  if (typeof targets === 'string') return [];
  const there = new Set(sites.map(({ name }) => lastOf(name)));
  const wanted = new Set(targets.map(lastOf));
  return [...new Set([...wanted].flatMap((name) => fusedOtherwise(name, (one) => there.has(one)) ?? []))];
}

function lastOf(module: string): string {
  return module.slice(module.lastIndexOf('.') + 1);
}

function shown(value: unknown): string {
  const text = JSON.stringify(value);
  return text.length > 100 ? `${text.slice(0, 97)}...` : text;
}

function error(kind: string, message: string, module?: string): OpenLoraError {
  return new OpenLoraError(`ERR_ADAPTER_${kind}`, message, module === undefined ? {} : { module });
}
