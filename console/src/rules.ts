// Targeting rules as a form. A rule has a form if it consists of the common shapes; parts of other shapes are kept as
// JSON inside the form. `parseRules` returns a form only if `writeRules` gives back exactly the same JSON.
import { isObject, sameJson, textOf, valueOf, type Json } from './api/json.ts';

export interface RuleForm {
  rules: Rule[];
  /** What applies when no rule does; undefined if the JSON does not say. */
  otherwise: Outcome | undefined;
}

export interface Rule {
  when: Group;
  then: Outcome;
}

export interface Group {
  /** Undefined for a single condition that is not wrapped. */
  join: 'and' | 'or' | undefined;
  conditions: Condition[];
}

export type Condition =
  | { kind: 'compare'; attribute: string; operator: Operator; value: Json; negated: Negation }
  | { kind: 'segment'; name: string; negated: Negation }
  | { kind: 'json'; json: Json };

/** `{"!": [x]}` and `{"!": x}` mean the same, and are kept apart to be written as they were. */
type Negation = 'list' | 'bare' | undefined;

export type Operator = '==' | '!=' | '===' | '!==' | '<' | '<=' | '>' | '>=' | 'in' | 'contains' | 'starts_with' | 'ends_with' | VersionOperator;
type VersionOperator = `sem_ver ${'=' | '!=' | '<' | '<=' | '>' | '>=' | '^' | '~'}`;

export type Outcome =
  | { kind: 'variant'; name: string }
  /** The default variant: `null`. */
  | { kind: 'default' }
  | { kind: 'split'; by: Json | undefined; buckets: Bucket[] }
  | { kind: 'json'; json: Json };

export interface Bucket {
  variant: string;
  /** Undefined counts as 1. */
  weight: number | undefined;
}

/** The operators in the order of a menu. */
export const OPERATORS: readonly (readonly [Operator, string])[] = [
  ['==', 'is'], ['!=', 'is not'], ['in', 'is one of'], ['contains', 'contains'],
  ['starts_with', 'starts with'], ['ends_with', 'ends with'],
  ['<', '<'], ['<=', '≤'], ['>', '>'], ['>=', '≥'],
  ['===', 'is exactly'], ['!==', 'is not exactly'],
  ['sem_ver =', 'version ='], ['sem_ver !=', 'version ≠'], ['sem_ver <', 'version <'], ['sem_ver <=', 'version ≤'],
  ['sem_ver >', 'version >'], ['sem_ver >=', 'version ≥'], ['sem_ver ^', 'same major version as'], ['sem_ver ~', 'same minor version as'],
];

/** The form of a rule; null if it has another shape. */
export function parseRules(targeting: Json | undefined): RuleForm | null {
  const form = readForm(targeting ?? {});
  return form && sameJson(writeRules(form), targeting ?? {}) ? form : null;
}

function readForm(targeting: Json): RuleForm | null {
  if (!isObject(targeting)) return null;
  if (Object.keys(targeting).length === 0) return { rules: [], otherwise: undefined };
  const parts = targeting['if'];
  if (!Array.isArray(parts)) return { rules: [], otherwise: readOutcome(targeting) };
  const rules: Rule[] = [];
  let index = 0;
  for (; index + 1 < parts.length; index += 2) {
    rules.push({ when: readGroup(parts[index] ?? null), then: readOutcome(parts[index + 1] ?? null) });
  }
  const last = parts[index];
  return { rules, otherwise: last === undefined ? undefined : readOutcome(last) };
}

function readGroup(json: Json): Group {
  for (const join of ['and', 'or'] as const) {
    const parts = only(json, join);
    if (Array.isArray(parts)) return { join, conditions: parts.map(readCondition) };
  }
  return { join: undefined, conditions: [readCondition(json)] };
}

function readCondition(json: Json): Condition {
  const denied = only(json, '!');
  const [inner, negated]: [Json, Negation] =
    denied === undefined ? [json, undefined] : Array.isArray(denied) && denied.length === 1 ? [denied[0] ?? null, 'list'] : [denied, 'bare'];
  const name = only(inner, '$ref');
  if (typeof name === 'string') return { kind: 'segment', name, negated };
  return readComparison(inner, negated) ?? { kind: 'json', json };
}

function readComparison(json: Json, negated: Negation): Condition | null {
  if (!isObject(json)) return null;
  const [operation] = Object.keys(json);
  const operands = operation === undefined ? undefined : json[operation];
  if (operation === undefined || !Array.isArray(operands)) return null;
  const [first = null, second = null, third = null] = operands;
  const compare = (attribute: Json | undefined, operator: Operator, value: Json): Condition | null =>
    typeof attribute === 'string' && isLiteral(value) ? { kind: 'compare', attribute, operator, value, negated } : null;
  if (operation === 'in') {
    return Array.isArray(second)
      ? compare(only(first, 'var'), 'in', second)
      : typeof first === 'string' ? compare(only(second, 'var'), 'contains', first) : null;
  }
  if (operation === 'sem_ver' && typeof second === 'string' && OPERATORS.some(([name]) => name === `sem_ver ${second}`)) {
    return compare(only(first, 'var'), `sem_ver ${second}` as VersionOperator, third);
  }
  if (operation === 'contains' || Array.isArray(second)) return null;
  const known = OPERATORS.find(([name]) => name === operation);
  return known ? compare(only(first, 'var'), known[0], second) : null;
}

/** Values that a field of the form can hold. */
function isLiteral(value: Json): boolean {
  return Array.isArray(value) ? value.every((item) => !Array.isArray(item) && isLiteral(item)) : !isObject(value);
}

function readOutcome(json: Json): Outcome {
  if (json === null) return { kind: 'default' };
  if (typeof json === 'string') return { kind: 'variant', name: json };
  const parts = only(json, 'fractional');
  if (Array.isArray(parts)) {
    const first = parts[0];
    const by = first !== undefined && !isBucket(first) ? first : undefined;
    const rest = by === undefined ? parts : parts.slice(1);
    if (rest.length > 0 && rest.every(isBucket)) {
      return { kind: 'split', by, buckets: rest.map(([variant, weight]) => ({ variant, weight })) };
    }
  }
  return { kind: 'json', json };
}

function isBucket(json: Json): json is [string, number] {
  return Array.isArray(json) && json.length >= 1 && json.length <= 2 && typeof json[0] === 'string' && (json.length === 1 || typeof json[1] === 'number');
}

/** The JSON of a form. */
export function writeRules({ rules, otherwise }: RuleForm): Json {
  if (rules.length === 0) {
    if (otherwise === undefined || otherwise.kind === 'default') return {};
    // A rule is an object, so a bare name of a variant needs a condition that always applies.
    return otherwise.kind === 'variant' ? { if: [true, otherwise.name] } : writeOutcome(otherwise);
  }
  const parts = rules.flatMap(({ when, then }) => [writeGroup(when), writeOutcome(then)]);
  return { if: otherwise === undefined ? parts : [...parts, writeOutcome(otherwise)] };
}

function writeGroup({ join, conditions }: Group): Json {
  const parts = conditions.map(writeCondition);
  const [first] = parts;
  if (join === undefined && parts.length === 1 && first !== undefined) return first;
  return { [join ?? 'and']: parts };
}

function writeCondition(condition: Condition): Json {
  if (condition.kind === 'json') return condition.json;
  const inner: Json = condition.kind === 'segment' ? { $ref: condition.name } : writeComparison(condition);
  if (condition.negated === undefined) return inner;
  return { '!': condition.negated === 'list' ? [inner] : inner };
}

function writeComparison({ attribute, operator, value }: Extract<Condition, { kind: 'compare' }>): Json {
  const variable = { var: attribute };
  if (operator === 'contains') return { in: [value, variable] };
  const [name, version] = operator.split(' ');
  return version === undefined ? { [operator]: [variable, value] } : { [name ?? '']: [variable, version, value] };
}

function writeOutcome(outcome: Outcome): Json {
  if (outcome.kind === 'default') return null;
  if (outcome.kind === 'variant') return outcome.name;
  if (outcome.kind === 'json') return outcome.json;
  const buckets = outcome.buckets.map(({ variant, weight }): Json => (weight === undefined ? [variant] : [variant, weight]));
  return { fractional: outcome.by === undefined ? buckets : [outcome.by, ...buckets] };
}

/** The value of this field if it is the only one of an object. */
export function only(json: Json, field: string): Json | undefined {
  return isObject(json) && Object.keys(json).length === 1 ? json[field] : undefined;
}

/** Whether an operator compares texts only: the API rejects every other value. */
function isTextual(operator: Operator): boolean {
  return /_|con/.test(operator);
}

/** The value of a condition as the text of its field. */
export function fieldText(operator: Operator, value: Json): string {
  if (Array.isArray(value)) return listText(value);
  return isTextual(operator) && typeof value === 'string' ? value : textOf(value);
}

/** The value that the text of a condition's field means: for an operator that compares texts, the text itself. */
export function parseField(operator: Operator, text: string): Json {
  if (operator === 'in') return parseList(text);
  return isTextual(operator) ? text : parseValue(text);
}

/** The value that a field's text means: a JSON number, boolean, null or quoted string, otherwise the text itself. */
export function parseValue(text: string): Json {
  return text === '' ? '' : plainValue(text);
}

function plainValue(text: string): Json {
  const value = valueOf(text) as Json;
  return Array.isArray(value) || !isLiteral(value) ? text : value;
}

/** A list as the text of a field: `DE, AT`. */
export function listText(values: readonly Json[]): string {
  return values.map((value) => {
    const text = textOf(value);
    return /[,"]|^\s|\s$/.test(text) ? JSON.stringify(value) : text;
  }).join(', ');
}

/** The list that a field's text means. Quoted parts may contain commas. */
export function parseList(text: string): Json[] {
  const parts = text.match(/\s*("(?:[^"\\]|\\.)*"|[^,])+/g) ?? [];
  return parts.map((part) => part.trim()).filter((part) => part !== '').map(parseValue);
}

/** `country is one of DE, AT and plan is pro` */
export function groupSentence({ join, conditions }: Group): string {
  return conditions.map(conditionSentence).join(` ${join ?? 'and'} `) || 'always';
}

function conditionSentence(condition: Condition): string {
  if (condition.kind === 'json') return condition.json === true ? 'always' : JSON.stringify(condition.json);
  const not = condition.negated ? 'not ' : '';
  if (condition.kind === 'segment') return `${not}in segment ${condition.name}`;
  const verb = OPERATORS.find(([name]) => name === condition.operator)?.[1] ?? condition.operator;
  return `${not}${condition.attribute || '…'} ${verb} ${fieldText(condition.operator, condition.value) || '""'}`;
}

/** `festive`, `the default variant`, `50 % red, 50 % blue` */
export function outcomeSentence(outcome: Outcome | undefined, defaultVariant: string | null | undefined): string {
  if (outcome === undefined || outcome.kind === 'default') {
    return defaultVariant ? `the default variant ${defaultVariant}` : "the application's default";
  }
  if (outcome.kind === 'variant') return outcome.name;
  if (outcome.kind === 'json') return JSON.stringify(outcome.json);
  return sharesOf(outcome.buckets).map(({ variant, share }) => `${share} % ${variant}`).join(', ');
}

/** The shares of a split in percent, rounded to two decimals. */
export function sharesOf(buckets: readonly Bucket[]): { variant: string; share: number }[] {
  const weights = buckets.map(({ weight = 1 }) => Math.max(0, weight));
  const sum = weights.reduce((total, weight) => total + weight, 0);
  return buckets.map(({ variant }, index) => ({ variant, share: sum && Math.round((weights[index]! / sum) * 10_000) / 100 }));
}
