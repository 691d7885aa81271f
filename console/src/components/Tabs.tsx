// Tabs whose choice is in the address (`?tab=`). Each is a link, so that it can be opened elsewhere.
import { useEffect, useRef } from 'preact/hooks';
import { address, href } from '../router.ts';

/** Scrolls a row that is too narrow for all its links to the current one. */
export function useCurrentLink(current: string) {
  const row = useRef<HTMLElement>(null);
  useEffect(() => {
    const link = row.current?.querySelector<HTMLElement>('[aria-current]');
    if (row.current && link) row.current.scrollLeft = link.offsetLeft - row.current.offsetLeft - 48;
  }, [current]);
  return row;
}

export function Tabs({ tabs, current, label }: { tabs: readonly (readonly [string, string])[]; current: string; label: string }) {
  const { path, query } = address.value;
  const key = query.get('key');
  return (
    <nav ref={useCurrentLink(current)} class="tabs" aria-label={label}>
      {tabs.map(([id, text]) => (
        <a key={id} href={href(path, { key, tab: id })} aria-current={id === current ? 'page' : undefined}>{text}</a>
      ))}
    </nav>
  );
}
