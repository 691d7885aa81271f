// What forms and lists share: numbers as texts, lists that are edited item by item, and the search for words.

/** A text that is not a number is sent unchanged: the message of the API says what it expects. */
export function numberOf(text: string): number | string {
  return text.trim() === '' || Number.isNaN(Number(text)) ? text : Number(text);
}

/** A copy of a list with one item replaced, or removed by undefined. */
export function withItem<T>(list: readonly T[], index: number, item: T | undefined): T[] {
  return item === undefined ? list.filter((_, at) => at !== index) : list.map((old, at) => (at === index ? item : old));
}

/** The options of a choice, with the chosen one even if it is gone. */
export function withChosen(options: readonly string[], chosen: string): readonly string[] {
  return options.includes(chosen) ? options : [chosen, ...options];
}

/** A filter for lists: whether a text contains each word of a query. */
export function matcherOf(query: string): (text: string) => boolean {
  const words = query.toLowerCase().split(/\s+/);
  return (text) => words.every((word) => text.toLowerCase().includes(word));
}
