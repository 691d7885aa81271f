// Evaluates flags with flagd's JavaScript engine (`fractional` hashes text to 32 bits: "v2"). Where this engine and the
// Python one disagree, the JsonLogic reference implementation, json-logic-js, decides.
//
// Reads one batch per line as JSON, and writes one line per batch in the same order:
//   {"flags": <a flagd file>, "cases": [{"key", "context"}], "by": "flagd" | "jsonlogic"}
//     -> {"answers": [{"value"?, "variant"?, "reason", "errorCode"?, "unknownVariant"?, "metadata"?}]}
//   {"flags": <a flagd file>, "by": "schema"} -> {"valid": true | false}
// The result of a batch that fails is {"failure": "why"}.

import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';

const require = createRequire(new URL('../../.tools/flagd-node/', import.meta.url));
const { FlagdCore, MemoryStorage } = require('@openfeature/flagd-core');
const jsonLogic = require('json-logic-js');
const semver = require('semver');

const silent = { error() {}, warn() {}, info() {}, debug() {} };

const resolvers = {
  boolean: 'resolveBooleanEvaluation',
  string: 'resolveStringEvaluation',
  number: 'resolveNumberEvaluation',
  object: 'resolveObjectEvaluation',
};

/** The name of the resolver for the type of a flag. */
function resolver(flag) {
  return resolvers[typeof Object.values(flag?.variants ?? { none: '' })[0]];
}

/** The unknown variant in an error message: the one that the targeting returned. */
function unknownVariant(errorMessage) {
  return /^Variant '([^]*)' not found in flag with key '/.exec(errorMessage ?? '')?.[1];
}

function byFlagd({ flags, cases }) {
  const core = new FlagdCore(undefined, silent);
  core.setConfigurations(JSON.stringify(flags));
  return cases.map(({ key, context }) => {
    const { value, variant, reason, errorCode, errorMessage, flagMetadata } = core[
      resolver(flags.flags[key])
    ](key, undefined, context);
    return {
      value,
      variant,
      reason,
      errorCode,
      unknownVariant: unknownVariant(errorMessage),
      metadata: errorCode ? undefined : flagMetadata,
    };
  });
}

function isValid({ flags }) {
  try {
    new MemoryStorage(silent).setConfigurations(JSON.stringify(flags), true);
    return true;
  } catch {
    return false;
  }
}

// The operators that flagd adds to JsonLogic, as its documentation describes them.

for (const [name, compare] of [
  ['starts_with', (text, part) => text.startsWith(part)],
  ['ends_with', (text, part) => text.endsWith(part)],
]) {
  jsonLogic.add_operation(name, (...given) =>
    given.length === 2 && given.every((one) => typeof one === 'string') ? compare(...given) : null,
  );
}

// Operators of the reference that are replaced, because both engines of flagd differ from it in common rules.

const isNull = (value) => value === null || value === undefined;

/** Equality in which an absent number is 0. */
function equal(one, other) {
  if (isNull(one) && ['number', 'boolean'].includes(typeof other)) return Number(other) === 0;
  if (isNull(other) && ['number', 'boolean'].includes(typeof one)) return Number(one) === 0;
  return one == other;
}

const number = (value) => (isNull(value) || typeof value === 'boolean' ? Number(value) : parseFloat(value));

/** Fails for a division by zero. */
function divisor(value) {
  if (Number(value) === 0) throw new Error('division by zero');
  return value;
}

/** The value of `var`. A `null` value counts as absent. */
function found(name, otherwise = null) {
  if (isNull(name) || name === '') return this;
  let value = this;
  for (const part of String(name).split('.')) {
    if (isNull(value)) return otherwise;
    value = value[part];
  }
  return isNull(value) ? otherwise : value;
}

jsonLogic.add_operation('var', found);
jsonLogic.add_operation('==', (one, other) => equal(one, other));
jsonLogic.add_operation('!=', (one, other) => !equal(one, other));
jsonLogic.add_operation('+', (...all) => all.reduce((sum, one) => sum + number(one), 0));
jsonLogic.add_operation('*', (...all) => all.reduce((product, one) => product * number(one), 1));
jsonLogic.add_operation('cat', (...all) => all.map((one) => (isNull(one) ? 'null' : String(one))).join(''));

/** Rounds the length towards zero, as the Python engine does. */
jsonLogic.add_operation('substr', (text, from, length) => {
  const source = String(text);
  if (length === undefined) return source.substr(from);
  const whole = Math.trunc(length);
  if (!(whole < 0)) return source.substr(from, whole);
  const rest = source.substr(from);
  return rest.substr(0, rest.length + whole);
});

jsonLogic.add_operation('/', (one, other) => one / divisor(other));
jsonLogic.add_operation('%', (one, other) => one % divisor(other));

/** Parses a version. Missing parts, as in `1` or `1.2`, are 0, as in flagd's JavaScript engine. */
function version(given) {
  const text = String(given).replace(/^[vV]/, '');
  return semver.parse(text) ?? (/^\d+(\.\d+)?$/.test(text) ? semver.coerce(text) : null);
}

jsonLogic.add_operation('sem_ver', (...given) => {
  if (given.length !== 3) return null;
  const [one, other] = [version(given[0]), version(given[2])];
  if (!one || !other) return null;
  const order = semver.compare(one, other);
  switch (given[1]) {
    case '=': return order === 0;
    case '!=': return order !== 0;
    case '<': return order < 0;
    case '<=': return order <= 0;
    case '>': return order > 0;
    case '>=': return order >= 0;
    case '^': return one.major === other.major;
    case '~': return one.major === other.major && one.minor === other.minor;
    default: return null;
  }
});

/** Replaces `{"$ref": name}` as both engines do: one shared evaluator after the other, in the order of the file. */
function inlined(rule, name, shared) {
  if (Array.isArray(rule)) return rule.map((one) => inlined(one, name, shared));
  if (rule === null || typeof rule !== 'object') return rule;
  const keys = Object.keys(rule);
  if (keys.length === 1 && keys[0] === '$ref' && rule.$ref === name) return shared;
  return Object.fromEntries(keys.map((key) => [key, inlined(rule[key], name, shared)]));
}

function byJsonLogic({ flags, cases }) {
  const evaluators = Object.entries(flags.$evaluators ?? {});
  const now = Math.floor(Date.now() / 1000);
  return cases.map(({ key, context }) => {
    const { state, targeting, variants, defaultVariant: named } = flags.flags[key];
    const defaultVariant = named || undefined;
    if (state === 'DISABLED') return { reason: 'DISABLED' };
    let variant = defaultVariant;
    let reason = 'STATIC';
    if (targeting && Object.keys(targeting).length > 0) {
      const rule = evaluators.reduce((rule, [name, shared]) => inlined(rule, name, shared), targeting);
      let chosen;
      try {
        chosen = jsonLogic.apply(rule, { ...context, $flagd: { flagKey: key, timestamp: now } });
      } catch {
        return { reason: 'ERROR', errorCode: 'GENERAL' };
      }
      const nothing = chosen === null || chosen === undefined;
      variant = nothing ? defaultVariant : String(chosen);
      reason = nothing ? 'DEFAULT' : 'TARGETING_MATCH';
    }
    if (variant === null || variant === undefined) return { reason: 'DEFAULT' };
    if (!Object.hasOwn(variants, variant)) {
      return { reason: 'ERROR', errorCode: 'GENERAL', unknownVariant: variant };
    }
    return { value: variants[variant], variant, reason };
  });
}

function answer(batch) {
  switch (batch.by) {
    case 'flagd': return { answers: byFlagd(batch) };
    case 'jsonlogic': return { answers: byJsonLogic(batch) };
    case 'schema': return { valid: isValid(batch) };
    default: throw new Error(`unknown engine: ${batch.by}`);
  }
}

for await (const line of createInterface({ input: process.stdin, crlfDelay: Infinity })) {
  let answered;
  try {
    answered = answer(JSON.parse(line));
  } catch (error) {
    answered = { failure: `${error?.stack ?? error}` };
  }
  process.stdout.write(`${JSON.stringify(answered)}\n`);
}
