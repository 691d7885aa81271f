// A table that renders only the rows in view, for lists of thousands. `j` and `k` move, Enter opens.
import type { ComponentChildren } from 'preact';
import { useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks';
import { useCommands } from '../shortcuts.ts';

const ROW_HEIGHT = 40;
/** Rows rendered beyond the window, so that scrolling shows no gaps. */
const EXTRA = 12;

export interface Column<T> {
  title: string;
  /** Class of the column; `wide` is left out on narrow screens, `number` aligns right. */
  class?: string;
  cell: (row: T) => ComponentChildren;
}

export interface TableProps<T> {
  label: string;
  rows: readonly T[];
  columns: readonly Column<T>[];
  keyOf: (row: T) => string;
}

/** `j` and `k` focus the first link or button of a row, so that Enter opens it as anywhere else. */
export function VirtualTable<T>({ label, rows, columns, keyOf }: TableProps<T>) {
  const body = useRef<HTMLTableSectionElement>(null);
  const [range, setRange] = useState<readonly [number, number]>([0, 40]);
  const current = useRef(-1);
  const wanted = useRef(-1);

  const measure = () => {
    if (!body.current) return;
    const top = -body.current.getBoundingClientRect().top;
    const first = Math.max(0, Math.floor(top / ROW_HEIGHT) - EXTRA);
    const last = Math.ceil((top + innerHeight) / ROW_HEIGHT) + EXTRA;
    // Steps of several rows, so that most scroll events render nothing.
    const next = [first - (first % 6), last + 6 - (last % 6)] as const;
    setRange((old) => (old[0] === next[0] && old[1] === next[1] ? old : next));
  };

  useLayoutEffect(measure, [rows]);
  useEffect(() => {
    addEventListener('scroll', measure, { passive: true });
    addEventListener('resize', measure);
    return () => {
      removeEventListener('scroll', measure);
      removeEventListener('resize', measure);
    };
  }, []);

  // The row to which a person moved is rendered now.
  useLayoutEffect(() => {
    const control = body.current?.querySelector<HTMLElement>(`[data-row="${wanted.current}"] :is(a, button)`);
    wanted.current = -1;
    control?.focus({ preventScroll: true });
    control?.scrollIntoView({ block: 'nearest' });
  });
  const move = (by: number) => {
    const row = Math.min(rows.length - 1, Math.max(0, current.current + by));
    wanted.current = row;
    setRange(([first, last]) => (row >= first && row < last ? [first, last] : [Math.max(0, row - EXTRA), row + EXTRA]));
  };
  useCommands(
    [
      { id: 'list.next', title: 'Next row', keys: 'j', hidden: true, run: () => move(1) },
      { id: 'list.previous', title: 'Previous row', keys: 'k', hidden: true, run: () => move(-1) },
    ],
    [rows],
  );

  const [start, end] = [Math.min(range[0], rows.length), Math.min(range[1], rows.length)];
  return (
    <table class="table" aria-label={label} aria-rowcount={rows.length + 1}>
      <thead>
        <tr aria-rowindex={1}>{columns.map((column) => <th key={column.title} scope="col" class={column.class}>{column.title}</th>)}</tr>
      </thead>
      <tbody
        ref={body}
        onFocusIn={(event) => {
          const row = event.target instanceof Element ? event.target.closest('[data-row]') : null;
          if (row) current.current = Number(row.getAttribute('data-row'));
        }}
      >
        {start > 0 && <tr aria-hidden="true" style={{ height: `${start * ROW_HEIGHT}px` }} />}
        {rows.slice(start, end).map((row, index) => (
          <tr key={keyOf(row)} data-row={start + index} aria-rowindex={start + index + 2}>
            {columns.map((column) => <td key={column.title} class={column.class}><div class="cell">{column.cell(row)}</div></td>)}
          </tr>
        ))}
        {end < rows.length && <tr aria-hidden="true" style={{ height: `${(rows.length - end) * ROW_HEIGHT}px` }} />}
      </tbody>
    </table>
  );
}
