// The pages of the console by address. The first pattern that matches shows its page.
import type { ComponentChildren } from 'preact';
import { ActivityPage } from './pages/ActivityPage.tsx';
import { CleanupPage } from './pages/CleanupPage.tsx';
import { ComparePage } from './pages/ComparePage.tsx';
import { FlagListPage } from './pages/FlagListPage.tsx';
import { FlagPage } from './pages/flag/FlagPage.tsx';
import { KeysPage } from './pages/KeysPage.tsx';
import { SettingsPage } from './pages/SettingsPage.tsx';
import type { Params } from './route.ts';

export interface PageRoute {
  pattern: string;
  page: (params: Params) => ComponentChildren;
}

/** Fields of `Params` are always those of the pattern. */
const at = (params: Params, name: string) => params[name] ?? '';

export const routes: readonly PageRoute[] = [
  { pattern: '/:env/flags', page: (params) => <FlagListPage env={at(params, 'env')} /> },
  { pattern: '/:env/flags/:key', page: (params) => <FlagPage env={at(params, 'env')} path={at(params, 'key')} /> },
  { pattern: '/:env/activity', page: (params) => <ActivityPage env={at(params, 'env')} /> },
  { pattern: '/:env/keys', page: (params) => <KeysPage env={at(params, 'env')} /> },
  { pattern: '/:env/settings', page: (params) => <SettingsPage env={at(params, 'env')} /> },
  { pattern: '/compare', page: () => <ComparePage /> },
  { pattern: '/cleanup', page: () => <CleanupPage /> },
];
