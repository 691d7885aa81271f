// The variants and rules of a flag as the fields of a form. Everything that the form does not show is kept.
import { isObject, parseJson, pretty, sameJson, tryJson, type Json } from './api/json.ts';

export type ValueType = 'boolean' | 'string' | 'number' | 'object';

export interface Draft {
  type: ValueType;
  variants: { name: string; text: string }[];
  /** The position of the default variant, or -1. Not its name: another variant may have it while a name is typed. */
  defaultAt: number;
  /** The targeting as JSON text: what the form and the text field both edit. */
  targeting: string;
  serverOnly: boolean;
}

export type Definition = { [key: string]: Json };

export function draftOf(definition: Definition): Draft {
  const variants = fields(definition['variants']);
  const type = typeOf(Object.values(variants)[0] ?? true);
  const targeting = definition['targeting'] ?? {};
  return {
    type,
    variants: Object.entries(variants).map(([name, value]) => ({ name, text: textOf(value, type) })),
    defaultAt: Object.keys(variants).indexOf(definition['defaultVariant'] as string),
    targeting: pretty(targeting),
    serverOnly: fields(definition['metadata'])['serverOnly'] === true,
  };
}

/** The name of the default variant. */
export function defaultOf({ variants, defaultAt }: Draft): string | undefined {
  return variants[defaultAt]?.name;
}

/** The type of a value. The first variant decides the type of a flag. */
function typeOf(value: Json): ValueType {
  return value instanceof Object || value === null ? 'object' : typeof value === 'object' ? 'number' : typeof value as ValueType;
}

function textOf(value: Json, type: ValueType): string {
  if (type === 'string' && typeof value === 'string') return value;
  return type === 'object' ? pretty(value) : JSON.stringify(value);
}

function fields(value: Json | undefined): { [key: string]: Json } {
  return isObject(value) ? value : {};
}

/** Why a draft cannot be sent. The API checks everything else. */
export type Problem = { kind: 'name' | 'twice' | 'number' | 'json' | 'object'; variant?: number; detail?: string };

/** The definition that a draft stands for, with the fields of the original that the form does not show. */
export function definitionFrom(draft: Draft, original: Definition): { definition: Definition } | { problem: Problem } {
  const variants: [string, Json][] = [];
  for (const [variant, { name, text }] of draft.variants.entries()) {
    if (name === '') return { problem: { kind: 'name', variant } };
    if (variants.some(([other]) => other === name)) return { problem: { kind: 'twice', variant, detail: name } };
    const value = valueFrom(text, draft.type);
    if (value === undefined) return { problem: { kind: draft.type === 'number' ? 'number' : draft.type === 'object' ? 'object' : 'json', variant } };
    variants.push([name, value]);
  }
  const [targeting, detail] = targetingFrom(draft.targeting);
  if (targeting === undefined) return { problem: { kind: 'json', detail } };
  const definition: Definition = { ...original, variants: Object.fromEntries(variants) };
  const name = defaultOf(draft);
  if (name !== undefined) definition['defaultVariant'] = name;
  else if (typeof original['defaultVariant'] === 'string') delete definition['defaultVariant'];
  if ('targeting' in original || !sameJson(targeting, {})) definition['targeting'] = targeting;
  const metadata = fields(original['metadata']);
  if ((metadata['serverOnly'] === true) !== draft.serverOnly) definition['metadata'] = { ...metadata, serverOnly: draft.serverOnly };
  return { definition };
}

/** The rules that a text means, or why it means none. */
export function targetingFrom(text: string): [Json] | [undefined, string] {
  try {
    return [parseJson(text.trim() || '{}') as Json];
  } catch (error) {
    return [undefined, (error as Error).message];
  }
}

function valueFrom(text: string, type: ValueType): Json | undefined {
  if (type === 'string') return text;
  const value = tryJson(text) as Json | undefined;
  return value !== undefined && typeOf(value) === type && (type !== 'object' || isObject(value)) ? value : undefined;
}

/** A definition that gives the users of a simple flag the values that they have, if its buckets are `fractional`. */
export function definitionOfSimple(percentage: number, salt: string | null): Definition {
  const buckets: Json[] = [['on', percentage], ['off', 100 - percentage]];
  const by: Json[] = salt === null ? [] : [{ cat: [salt, { var: 'targetingKey' }] }];
  return {
    variants: { on: true, off: false },
    defaultVariant: 'off',
    ...(percentage === 100 ? { defaultVariant: 'on' } : percentage > 0 && { targeting: { fractional: [...by, ...buckets] } }),
  };
}

/** Their definition with the fields that I have changed; mine as a whole if one of the three is null. */
export function mergeDefinitions(base: Definition | null, theirs: Definition | null, mine: Definition | null): Definition | null {
  if (!base || !theirs || !mine) return mine;
  const merged: Definition = {};
  for (const field of new Set([...Object.keys(theirs), ...Object.keys(mine)])) {
    const value = sameJson(base[field], mine[field]) ? theirs[field] : mine[field];
    if (value !== undefined) merged[field] = value;
  }
  return merged;
}
