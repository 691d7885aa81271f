// Two JSON values as text, line by line: what was removed and what was added.
import type { ComponentChildren } from 'preact';
import { useState } from 'preact/hooks';
import { pretty } from '../api/json.ts';
import { diffLines } from '../diff.ts';
import { environmentTexts } from '../strings.ts';

const SIGNS = { same: ' ', added: '+', removed: '−' };

const textOf = (value: unknown) => (value === null || value === undefined ? '' : pretty(value));

interface Props {
  /** Null or undefined if there is no value. If both sides have none, they were too large for the response. */
  before: unknown;
  after: unknown;
  label: string;
}

export function Diff({ before, after, label }: Props) {
  if ((before ?? after) == null) return <p>{environmentTexts.tooLarge}</p>;
  return (
    <pre class="diff" aria-label={label} tabIndex={0}>
      {diffLines(textOf(before), textOf(after)).map(({ kind, text }, index) => <span key={index} class={kind}>{`${SIGNS[kind]} ${text}\n`}</span>)}
    </pre>
  );
}

/** A difference that is computed when it is opened: those of many large values would block the page. */
export function DiffDetails({ children, ...diff }: Props & { children?: ComponentChildren }) {
  const [open, setOpen] = useState(false);
  return (
    <details onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>{diff.label}</summary>
      {open && <Diff {...diff} />}
      {children}
    </details>
  );
}
