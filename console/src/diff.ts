// The difference of two texts by lines, by their longest common subsequence.

export interface Line {
  kind: 'same' | 'added' | 'removed';
  text: string;
}

/** Above this many pairs, the lines between the common beginning and end are shown as removed and added: comparing them
 * would block the page. */
const MAX_CELLS = 4_000_000;

export function diffLines(before: string, after: string): Line[] {
  const a = before === '' ? [] : before.split('\n');
  const b = after === '' ? [] : after.split('\n');
  let start = 0;
  while (start < a.length && start < b.length && a[start] === b[start]) start += 1;
  let end = 0;
  while (end < a.length - start && end < b.length - start && a[a.length - 1 - end] === b[b.length - 1 - end]) end += 1;
  return [
    ...linesOf('same', a.slice(0, start)),
    ...middle(a.slice(start, a.length - end), b.slice(start, b.length - end)),
    ...linesOf('same', a.slice(a.length - end)),
  ];
}

function linesOf(kind: Line['kind'], texts: readonly string[]): Line[] {
  return texts.map((text) => ({ kind, text }));
}

/** The difference between two texts without their common beginning and end. */
function middle(a: string[], b: string[]): Line[] {
  if (a.length * b.length > MAX_CELLS) return [...linesOf('removed', a), ...linesOf('added', b)];
  // longest[i][j]: the length of the longest common subsequence of a from i and b from j.
  const width = b.length + 1;
  const longest = new Uint32Array((a.length + 1) * width);
  const at = (i: number, j: number) => longest[i * width + j] ?? 0;
  for (let i = a.length - 1; i >= 0; i -= 1) {
    for (let j = b.length - 1; j >= 0; j -= 1) {
      longest[i * width + j] = a[i] === b[j] ? at(i + 1, j + 1) + 1 : Math.max(at(i + 1, j), at(i, j + 1));
    }
  }
  const lines: Line[] = [];
  for (let i = 0, j = 0; i < a.length || j < b.length;) {
    const kind = i < a.length && j < b.length && a[i] === b[j] ? 'same'
      : i < a.length && (j >= b.length || at(i + 1, j) >= at(i, j + 1)) ? 'removed' : 'added';
    lines.push({ kind, text: (kind === 'added' ? b[j] : a[i]) ?? '' });
    if (kind !== 'added') i += 1;
    if (kind !== 'removed') j += 1;
  }
  return lines;
}
