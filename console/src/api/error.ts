// What the API says about a rejected request.

export class ApiError extends Error {
  override readonly name = 'ApiError';
  /** The fields whose messages a form shows at their place. */
  readonly shown = new Set<string>();

  constructor(
    /** The status of the response; 0 without one. */
    readonly status: number,
    message: string,
    /** Messages by field: a name, or a JSON pointer without the first slash such as `definition/targeting/if/1`. */
    readonly fields: Record<string, string[]> = {},
  ) {
    super(message);
  }

  /** Whether the state has changed since it was read. */
  get conflict(): boolean {
    return this.status === 412;
  }

  /** Whether a form shows all messages about fields at the places of these fields. */
  get isAtFields(): boolean {
    return this.shown.size > 0 && Object.entries(this.fields).every(([field, { length }]) => length === 0 || this.shown.has(field));
  }

  /** Whether there was no response or the service was unavailable (503), so that the same request may succeed later. */
  get transient(): boolean {
    return this.status === 0 || this.status === 503;
  }
}

/** Reads both shapes of an error: `{error, message}`, and `{error, details: {formErrors, fieldErrors}}`. */
export function errorOf(status: number, body: unknown): ApiError {
  const { error, message, details } = Object(body) as Record<string, unknown>;
  const { formErrors, fieldErrors } = Object(details) as Record<string, unknown>;
  const texts = listOf(formErrors);
  const fields = Object.fromEntries(Object.entries(Object(fieldErrors) as object).map(([field, messages]) => [field, listOf(messages)]));
  for (const [field, messages] of Object.entries(fields)) texts.push(`${field}: ${messages.join('; ')}`);
  // No form has a place for errors that belong to no field.
  fields[''] = listOf(formErrors);
  if (typeof message === 'string') texts.unshift(message);
  const text = texts.join('\n') || (typeof error === 'string' ? error : `The server answered with status ${status}`);
  return new ApiError(status, text, fields);
}

const listOf = (value: unknown): string[] => (Array.isArray(value) ? value.map(String) : []);

/** The messages at a field or a JSON pointer, and below it. Records in `error.shown` that a form shows them there. */
export function errorsShownAt(error: ApiError | null | undefined, field: string): string[] {
  if (!error) return [];
  return Object.entries(error.fields).flatMap(([name, messages]) => {
    const below = name.startsWith(`${field}/`);
    if (!below && name !== field) return [];
    error.shown.add(name);
    return below ? messages.map((message) => `${name.slice(field.length + 1)}: ${message}`) : messages;
  });
}
