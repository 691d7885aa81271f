// Two JSON values as text, line by line: what was removed and what was added.
import { diffLines } from '../diff.ts';

export function Diff({ before, after, label }: { before: unknown; after: unknown; label: string }) {
  const lines = diffLines(pretty(before), pretty(after));
  return (
    <pre class="diff" aria-label={label} tabIndex={0}>
      {lines.map((line, index) => (
        <span key={index} class={line.kind}>{`${line.kind === 'added' ? '+' : line.kind === 'removed' ? '−' : ' '} ${line.text}\n`}</span>
      ))}
    </pre>
  );
}

function pretty(value: unknown): string {
  return value === null || value === undefined ? '' : JSON.stringify(value, null, 2);
}
