// JSON that keeps integers which JavaScript cannot hold exactly: saving a flag must not change a 64-bit number in it.
// Browsers without `JSON.rawJSON` read them as the nearest number.

interface RawJson {
  parse(text: string, reviver: (key: string, value: unknown, context?: { source?: string }) => unknown): unknown;
  rawJSON?(source: string): unknown;
}

/** Like `JSON.parse`; unsafe integers and overflowing numbers become objects that `JSON.stringify` writes unchanged. */
export function parseJson(text: string): unknown {
  const { parse, rawJSON } = JSON as RawJson;
  if (!rawJSON || !/\d{16}|[.eE]/.test(text)) return JSON.parse(text);
  return parse(text, (_, value, context) => {
    const source = context?.source;
    return typeof value === 'number' && source !== undefined && loses(value, source) ? rawJSON(source) : value;
  });
}

/** Like `parseJson`; undefined if the text is not JSON. */
export function tryJson(text: string): unknown {
  try {
    return parseJson(text);
  } catch {
    return undefined;
  }
}

/** The value of a field: its text as JSON if it is valid JSON, otherwise the text itself. */
export function valueOf(text: string): unknown {
  const value = tryJson(text);
  return value === undefined ? text : value;
}

/** The text of a field from which `valueOf` reads this value: a text stands for itself unless it would be read as something else. */
export function textOf(value: unknown): string {
  return typeof value === 'string' && valueOf(value) === value && value !== '' ? value : JSON.stringify(value);
}

/** JSON as people read it. */
export function pretty(value: unknown): string {
  return JSON.stringify(value, null, 2);
}

/** Whether parsing may have changed an integer (9007199254740993 becomes 9007199254740992) or overflowed (1e999). */
function loses(value: number, source: string): boolean {
  if (/^-?\d+$/.test(source)) return !Number.isSafeInteger(value);
  return !Number.isFinite(value);
}

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

/** Not for numbers that JavaScript cannot hold: they have no prototype. */
export function isObject(json: unknown): json is { [key: string]: Json } {
  return json instanceof Object && !Array.isArray(json);
}

/** Whether two values are the same JSON, apart from the order of fields. */
export function sameJson(a: unknown, b: unknown): boolean {
  if (a === b) return true;
  if (Object(a) !== a || Object(b) !== b || Array.isArray(a) !== Array.isArray(b)) return false;
  const [left, right] = [a, b] as Record<string, unknown>[] as [Record<string, unknown>, Record<string, unknown>];
  const keys = Object.keys(left);
  return keys.length === Object.keys(right).length && keys.every((key) => Object.hasOwn(right, key) && sameJson(left[key], right[key]));
}
