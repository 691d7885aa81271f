// Addresses as data: pure functions, without the browser's history (router.ts).

/** The parts of a path; none if one of them is malformed. */
export function partsOf(path: string): string[] {
  try {
    return path.split('/').filter((part) => part !== '').map(decodeURIComponent);
  } catch {
    return [];
  }
}

/** The path below the console's folder, beginning with `/`; null for an address outside of it. */
export function pathBelow(base: string, pathname: string): string | null {
  if (`${pathname}/` === base) return '/';
  return pathname.startsWith(base) ? `/${pathname.slice(base.length)}` : null;
}

export type Query = Record<string, string | number | boolean | null | undefined>;

/** `path?a=1`; null, undefined and empty values are left out. */
export function withQuery(path: string, query: Query): string {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (value !== null && value !== undefined && value !== '') search.set(name, String(value));
  }
  const text = search.toString();
  return text === '' ? path : `${path}?${text}`;
}

/** The address of a page of an environment, such as `flags`. */
export function pagePath(environment: string, page: string): string {
  return `/${encodeURIComponent(environment)}/${page}`;
}

/**
 * Keys that a server or a proxy could take for another path, or for a file of the console. They are sent in the query,
 * with `-` in their place, so the key `-` is one of them.
 */
const UNSAFE = /[/\\?#%]|^\.{1,2}$|^-$|\.(js|css|svg|ico|png|map|json|txt|html?)$/i;

/** The address of a flag's page below the console's folder. */
export function flagPath(environment: string, key: string, query: Query = {}): string {
  const folder = pagePath(environment, 'flags');
  return UNSAFE.test(key)
    ? withQuery(`${folder}/-`, { ...query, key })
    : withQuery(`${folder}/${encodeURIComponent(key)}`, query);
}
