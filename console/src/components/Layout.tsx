// What surrounds every page: environment, navigation, who is signed in, and what does not work.
import type { ComponentChildren } from 'preact';
import { useRef } from 'preact/hooks';
import { logout, signedIn } from '../auth.ts';
import { isProduction } from '../config.ts';
import { trouble } from '../connection.ts';
import { withChosen } from '../forms.ts';
import { pagePath } from '../route.ts';
import { address, environmentInAddress, href, navigate } from '../router.ts';
import { environment, environments, mayEdit, me } from '../session.ts';
import { shownKeys, useCommands } from '../shortcuts.ts';
import { pageNames, texts, troubleTexts } from '../strings.ts';
import { Button } from './controls.tsx';
import { Banner } from './feedback.tsx';
import { Login } from './Login.tsx';
import { ConfirmationDialog, Dialog, Toasts } from './overlays.tsx';
import { openPalette, Palette } from './Palette.tsx';
import { useCurrentLink } from './Tabs.tsx';

type PageName = keyof typeof pageNames;
const PAGES = Object.keys(pageNames) as PageName[];

function pathOf(page: PageName, env: string): string {
  return page === 'compare' || page === 'cleanup' ? `/${page}` : pagePath(env, page);
}

/** Opens the same page of another environment, or from a page about several environments, the flags of that one. */
function switchEnvironment(to: string): void {
  const { path, query } = address.value;
  const from = environmentInAddress.value;
  const page = from === null ? 'flags' : path.replace(/^\/[^/]+\//, '');
  navigate(pagePath(to, page), { query: from === null ? {} : Object.fromEntries(query) });
}

export function Layout({ children }: { children: ComponentChildren }) {
  const env = environment.value;
  const shown = environmentInAddress.value;
  const select = useRef<HTMLSelectElement>(null);
  const names = environments.value;
  useCommands(
    [
      {
        id: 'environment', title: 'Switch environment', keys: 'e', hidden: true,
        run: () => {
          select.current?.focus();
          select.current?.showPicker?.();
        },
      },
      ...PAGES.map((page) => ({ id: `page.${page}`, title: `Open ${pageNames[page]}`, run: () => navigate(pathOf(page, environment.peek())) })),
      ...names.filter((name) => name !== env).map((name) => ({ id: `environment.${name}`, title: `Switch to ${name}`, run: () => switchEnvironment(name) })),
    ],
    [env, names.join()],
  );
  return (
    <>
      <a class="skip" href="#content">{texts.skip}</a>
      <header class="top">
        <a class="brand" href={href(pagePath(env, 'flags'))}>{texts.product}</a>
        <span>
          <label for="environment">{texts.environment}</label>
          <select ref={select} id="environment" value={env} onChange={(event) => switchEnvironment(event.currentTarget.value)}>
            {withChosen(names, env).map((name) => <option key={name} value={name}>{name}</option>)}
          </select>
        </span>
        <nav ref={useCurrentLink(address.value.path)} aria-label={texts.navigation}>
          {PAGES.map((page) => {
            const path = pathOf(page, env);
            const here = address.value.path === path || address.value.path.startsWith(`${path}/`);
            return <a key={page} href={href(path)} aria-current={here ? 'page' : undefined}>{pageNames[page]}</a>;
          })}
        </nav>
        <span class="who">
          {me.value && <span>{texts.signedInAs(me.value.actor, me.value.roles)}</span>}
          <Button tone="quiet" onClick={openPalette}>{texts.palette} {shownKeys('mod+k')}</Button>
          <Button tone="quiet" onClick={logout}>{texts.signOut}</Button>
        </span>
        {isProduction(env) && <p class="band">{texts.production}</p>}
      </header>
      <main id="content" tabIndex={-1}>
        {trouble.value && <Banner tone="warn">{troubleTexts[trouble.value]}</Banner>}
        {me.value && shown !== null && !mayEdit(shown) && <Banner>{texts.readOnly(shown)}</Banner>}
        {children}
      </main>
      <ConfirmationDialog />
      <Palette />
      <Toasts />
      {!signedIn.value && (
        <Dialog title={texts.login.ended} onClose={logout}>
          <p>{texts.login.endedText}</p>
          <Login />
        </Dialog>
      )}
    </>
  );
}
