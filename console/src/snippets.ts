// Programs that read a flag with the OpenFeature SDKs that docs/openfeature.md lists.

export const LANGUAGES = ['node', 'browser', 'python', 'rust'] as const;
export type Language = (typeof LANGUAGES)[number];

export type SnippetType = 'boolean' | 'string' | 'integer' | 'float' | 'object';

export interface SnippetInput {
  /** Without a slash at the end: with one, clients request `//ofrep`. */
  url: string;
  apiKey: string;
  flagKey: string;
  type: SnippetType;
}

/** Per type: the methods of JavaScript, Python and Rust, and the default of the application in each. */
const TYPES: Record<SnippetType, { js: [string, string]; python: [string, string]; rust: [string, string] }> = {
  boolean: { js: ['getBooleanValue', 'false'], python: ['get_boolean_value', 'False'], rust: ['get_bool_value', 'false'] },
  string: { js: ['getStringValue', "'default'"], python: ['get_string_value', '"default"'], rust: ['get_string_value', '"default".to_owned()'] },
  integer: { js: ['getNumberValue', '0'], python: ['get_integer_value', '0'], rust: ['get_int_value', '0'] },
  float: { js: ['getNumberValue', '0'], python: ['get_float_value', '0.0'], rust: ['get_float_value', '0.0'] },
  object: { js: ['getObjectValue', '{}'], python: ['get_object_value', '{}'], rust: ['get_struct_value::<YourType>', 'YourType::default()'] },
};

/** The commands that install the SDK of a language. */
export const INSTALL: Record<Language, string> = {
  node: 'npm install @openfeature/server-sdk @openfeature/ofrep-provider',
  browser: 'npm install @openfeature/web-sdk @openfeature/ofrep-web-provider',
  python: 'pip install openfeature-sdk openfeature-provider-ofrep',
  rust: 'cargo add open-feature open-feature-ofrep reqwest && cargo add tokio --features full',
};

/** A string literal of JavaScript, Python and Rust alike: they share the escapes of the quote and the backslash. */
function quoted(text: string): string {
  return `"${text.replace(/["\\]/g, '\\$&')}"`;
}

export function snippet(language: Language, { url, apiKey, flagKey, type }: SnippetInput): string {
  const { js, python, rust } = TYPES[type];
  const [base, key, flag, bearer] = [quoted(url), quoted(apiKey), quoted(flagKey), quoted(`Bearer ${apiKey}`)];
  switch (language) {
    case 'node': return `import { OpenFeature } from '@openfeature/server-sdk';
import { OFREPProvider } from '@openfeature/ofrep-provider';

await OpenFeature.setProviderAndWait(new OFREPProvider({
  baseUrl: ${base}, headers: [['Authorization', ${bearer}]],
}));
const flags = OpenFeature.getClient();
const value = await flags.${js[0]}(${flag}, ${js[1]}, { targetingKey: 'alice' });
`;
    case 'browser': return `import { OpenFeature } from '@openfeature/web-sdk';
import { OFREPWebProvider } from '@openfeature/ofrep-web-provider';

await OpenFeature.setProviderAndWait(new OFREPWebProvider({
  baseUrl: ${base}, pollInterval: 30000, headers: [['Authorization', ${bearer}]],
}), { targetingKey: 'alice' });
const value = OpenFeature.getClient().${js[0]}(${flag}, ${js[1]});
`;
    case 'python': return `from openfeature import api
from openfeature.contrib.provider.ofrep import OFREPProvider
from openfeature.evaluation_context import EvaluationContext

key = ${key}
api.set_provider(OFREPProvider(${base}, headers_factory=lambda: {"Authorization": f"Bearer {key}"}))
value = api.get_client().${python[0]}(${flag}, ${python[1]}, EvaluationContext("alice"))
`;
    case 'rust': return `use open_feature::{EvaluationContext, OpenFeature};
use open_feature_ofrep::{OfrepOptions, OfrepProvider};
use reqwest::header::HeaderMap;

let mut headers = HeaderMap::new();
headers.insert("authorization", ${bearer}.parse()?);
let options = OfrepOptions { base_url: ${base}.to_owned(), headers, ..OfrepOptions::default() };
let provider = OfrepProvider::new(options).await.map_err(|error| error.to_string())?;
OpenFeature::singleton_mut().await.set_provider(provider).await;
let context = EvaluationContext::default().with_targeting_key("alice");
let client = OpenFeature::singleton().await.create_client();
let value = client.${rust[0]}(${flag}, Some(&context), None).await.unwrap_or(${rust[1]});
`;
  }
}

/** The type that a client asks for. A flag without variants is a boolean. */
export function snippetType(variants: readonly unknown[]): SnippetType {
  const [first = true] = variants;
  if (typeof first === 'boolean' || typeof first === 'string') return typeof first as 'boolean' | 'string';
  if (typeof first !== 'number') return 'object';
  return variants.every(Number.isInteger) ? 'integer' : 'float';
}
