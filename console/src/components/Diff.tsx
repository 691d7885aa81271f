// Two JSON values as text, line by line: what was removed and what was added.
import { pretty } from '../api/json.ts';
import { diffLines } from '../diff.ts';

export function Diff({ before, after, label }: { before: unknown; after: unknown; label: string }) {
  const [was, is] = [before, after].map((value) => (value === null || value === undefined ? '' : pretty(value))) as [string, string];
  const lines = diffLines(was, is);
  return (
    <pre class="diff" aria-label={label} tabIndex={0}>
      {lines.map((line, index) => (
        <span key={index} class={line.kind}>{`${line.kind === 'added' ? '+' : line.kind === 'removed' ? '−' : ' '} ${line.text}\n`}</span>
      ))}
    </pre>
  );
}
