// Rows of a table that are selected for an action.
import { useState } from 'preact/hooks';

export interface Selection {
  keys: ReadonlySet<string>;
  select(keys: Iterable<string>): void;
  /** The box of a row; `why` it cannot be selected. */
  box(key: string, label: string, why: string | undefined): preact.JSX.Element;
}

export function useSelection(first: Iterable<string> = []): Selection {
  const [keys, setKeys] = useState<ReadonlySet<string>>(new Set(first));
  const select = (next: Iterable<string>) => setKeys(new Set(next));
  return {
    keys,
    select,
    box: (key, label, why) => (
      <input
        type="checkbox" aria-label={label} title={why} disabled={why !== undefined} checked={why === undefined && keys.has(key)}
        onChange={(event) => select(event.currentTarget.checked ? [...keys, key] : [...keys].filter((other) => other !== key))}
      />
    ),
  };
}
