// Programs that read a flag with the OpenFeature SDKs that docs/openfeature.md lists. They are in static/programs.json,
// which is loaded when the first one is shown.

export const LANGUAGES = ['node', 'browser', 'python', 'rust'] as const;
export type Language = (typeof LANGUAGES)[number];

export type SnippetType = 'boolean' | 'string' | 'integer' | 'float' | 'object';

export interface Program {
  /** The command that installs the SDK. */
  install: string;
  /** Per type of the flag: the method, and the default of the application. */
  types: Record<SnippetType, readonly [method: string, fallback: string]>;
  /** The program, with placeholders such as `<url>`, which `snippet` replaces. */
  lines: readonly string[];
}

export type Programs = Record<Language, Program>;

export interface SnippetInput {
  /** Without a slash at the end: with one, clients request `//ofrep`. */
  url: string;
  apiKey: string;
  flagKey: string;
  type: SnippetType;
}

/** A string literal of JavaScript, Python and Rust alike: they share the escapes of the quote and the backslash. */
function quoted(text: string): string {
  return `"${text.replace(/["\\]/g, '\\$&')}"`;
}

export function snippet({ types, lines }: Program, { url, apiKey, flagKey, type }: SnippetInput): string {
  const [method, fallback] = types[type];
  const values: Record<string, string> = {
    url: quoted(url), apiKey: quoted(apiKey), bearer: quoted(`Bearer ${apiKey}`), flag: quoted(flagKey), method, default: fallback,
  };
  return lines.join('\n').replace(/<(\w+)>/g, (placeholder, name: string) => values[name] ?? placeholder);
}

/** The type that a client asks for. A flag without variants is a boolean. */
export function snippetType(variants: readonly unknown[]): SnippetType {
  const [first = true] = variants;
  if (typeof first === 'boolean' || typeof first === 'string') return typeof first as 'boolean' | 'string';
  if (typeof first !== 'number') return 'object';
  return variants.every(Number.isInteger) ? 'integer' : 'float';
}
