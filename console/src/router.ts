// Everything that a person could want to return to or paste into a chat is in the address. Pages read `address`, and
// change it with `navigate` or ordinary links.
import { computed, signal } from '@preact/signals-core';
import { consolePath } from './base.ts';
import { partsOf, pathBelow, withQuery, type Query } from './route.ts';

interface Address {
  /** Below the console's folder, beginning with `/`. */
  path: string;
  /** Of the path, decoded. */
  parts: readonly string[];
  query: URLSearchParams;
}

function read(): Address {
  const path = pathBelow(consolePath, location.pathname) ?? '/';
  return { path, parts: partsOf(path), query: new URLSearchParams(location.search) };
}

export const address = signal<Address>(read());

/** The value of one query parameter, or an empty text. */
export function queryValue(name: string): string {
  return address.value.query.get(name) ?? '';
}

/** For `href`: the address of a path below the console's folder. */
export function href(path: string, query: Query = {}): string {
  return consolePath + withQuery(path, query).slice(1);
}

export function navigate(path: string, options: { replace?: boolean; query?: Query } = {}): void {
  const target = href(path, options.query);
  const samePage = target.split('?')[0] === location.pathname;
  history[options.replace ? 'replaceState' : 'pushState'](null, '', target);
  address.value = read();
  if (!samePage) scrollTo(0, 0);
}

/** Changes query parameters of the current page. By default without a history entry, as when typing into a search. */
export function setQuery(change: Query, options: { replace?: boolean } = { replace: true }): void {
  const query: Query = Object.fromEntries(address.value.query);
  navigate(address.value.path, { ...options, query: { ...query, ...change } });
}

/** The environment in the address, or null on a page about several. */
export const environmentInAddress = computed<string | null>(() => {
  const [first = null, page] = address.value.parts;
  return page === undefined ? null : first;
});

export function startRouter(): void {
  // A sign-in may have changed the address since this module was loaded.
  address.value = read();
  addEventListener('popstate', () => {
    address.value = read();
  });
  document.addEventListener('click', (event) => {
    if (event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey) return;
    const link = event.target instanceof Element ? event.target.closest('a') : null;
    if (!link || link.target || link.hasAttribute('download') || link.origin !== location.origin) return;
    const path = pathBelow(consolePath, link.pathname);
    if (path === null || link.hash) return;
    event.preventDefault();
    navigate(path + link.search);
  });
}
