// The pages of the console by address.
import type { ComponentChildren } from 'preact';
import { ActivityPage } from './pages/ActivityPage.tsx';
import { CleanupPage } from './pages/CleanupPage.tsx';
import { ComparePage } from './pages/ComparePage.tsx';
import { FlagListPage } from './pages/FlagListPage.tsx';
import { FlagPage } from './pages/flag/FlagPage.tsx';
import { KeysPage } from './pages/KeysPage.tsx';
import { SettingsPage } from './pages/SettingsPage.tsx';

/** Pages about all environments. */
const pages = new Map<string, () => ComponentChildren>([
  ['compare', () => <ComparePage />],
  ['cleanup', () => <CleanupPage />],
]);

/** Pages of an environment, whose name comes before theirs. */
const environmentPages = new Map<string, (env: string) => ComponentChildren>([
  ['flags', (env) => <FlagListPage env={env} />],
  ['activity', (env) => <ActivityPage env={env} />],
  ['keys', (env) => <KeysPage env={env} />],
  ['settings', (env) => <SettingsPage env={env} />],
]);

/** The page at an address, by the parts of its path; undefined if there is none. */
export function pageAt([first = '', name, item, ...more]: readonly string[]): ComponentChildren {
  if (name === undefined) return pages.get(first)?.();
  if (item === undefined) return environmentPages.get(name)?.(first);
  return name === 'flags' && more.length === 0 ? <FlagPage env={first} path={item} /> : undefined;
}
