// Where the console and the API are. The scripts are in the console's own folder, so their address contains the
// base path, with the stage name or the custom domain.

/** The folder of the console, with a slash at the end: `/console/`. */
export const consolePath = new URL('.', import.meta.url).pathname;

/** The root of the API, with a slash at the end: `/`. */
const apiRoot = new URL('..', import.meta.url).href;

/** The address of an API path that begins with `/`. */
export function apiUrl(path: string): string {
  return apiRoot + path.slice(1);
}
