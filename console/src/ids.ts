// Lists of user ids that people paste.

/** One id per line or separated by commas; each once, in their order. */
export function parseIds(text: string): string[] {
  const ids = text.split(/[\n,]/).map((id) => id.trim()).filter((id) => id !== '');
  return [...new Set(ids)];
}
