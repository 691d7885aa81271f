// A table with a search field, which the key `/` focuses. The query is in the address.
import type { ComponentChildren } from 'preact';
import { useMemo, useRef } from 'preact/hooks';
import { matcherOf } from '../forms.ts';
import { queryValue, setQuery } from '../router.ts';
import { useCommands } from '../shortcuts.ts';
import { VirtualTable, type TableProps } from './VirtualTable.tsx';

interface Props<T> extends TableProps<T> {
  /** The parameter of the address. */
  name: string;
  search: string;
  /** Where the words are looked for. */
  textOf: (row: T) => string;
  /** How many rows are shown, in words. */
  countOf: (shown: number) => string;
  /** More filters. */
  filters?: ComponentChildren;
  /** What is shown if no row matches. */
  noMatch: ComponentChildren;
}

export function SearchTable<T>({ name, search, textOf, countOf, filters, noMatch, rows, ...table }: Props<T>) {
  const input = useRef<HTMLInputElement>(null);
  useCommands([{ id: 'search', title: search, keys: '/', run: () => input.current?.focus() }]);
  const query = queryValue(name);
  const shown = useMemo(() => {
    const matches = matcherOf(query);
    return rows.filter((row) => matches(textOf(row)));
  }, [rows, query]);
  return (
    <>
      <div class="row filters">
        <input
          ref={input} type="search" class="search" value={query} aria-label={search} placeholder={`${search}  ( / )`}
          onInput={(event) => setQuery({ [name]: event.currentTarget.value })}
          onKeyDown={(event) => {
            if (event.key === 'Escape') event.currentTarget.blur();
          }}
        />
        {filters}
        <span class="muted" role="status">{countOf(shown.length)}</span>
      </div>
      {shown.length === 0 ? noMatch : <VirtualTable {...table} rows={shown} />}
    </>
  );
}
