// Tabs whose choice is in the address (`?tab=`). Each is a link, so that it can be opened elsewhere.
import { address, href } from '../router.ts';

export function Tabs({ tabs, current, label }: { tabs: readonly (readonly [string, string])[]; current: string; label: string }) {
  const { path, query } = address.value;
  const key = query.get('key');
  return (
    <nav class="tabs" aria-label={label}>
      {tabs.map(([id, text]) => (
        <a key={id} href={href(path, { key, tab: id })} aria-current={id === current ? 'page' : undefined}>{text}</a>
      ))}
    </nav>
  );
}
