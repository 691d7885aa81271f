// The only place that calls the API.
import { apiUrl } from '../base.ts';
import { accessToken, renewToken, sessionEnded, tokenAccepted } from '../auth.ts';
import { connectionFailed, connectionWorks, fetchText } from '../connection.ts';
import { withQuery } from '../route.ts';
import { curl } from './curl.ts';
import { ApiError, errorOf } from './error.ts';
import { tryJson } from './json.ts';
import type { components, paths as Paths } from './types.ts';

export type Schemas = components['schemas'];

export type Method = 'get' | 'put' | 'post' | 'patch' | 'delete';
type Json<T> = T extends { content: { 'application/json': infer B } } ? B : never;

/** The paths that have a method. */
export type PathOf<M extends Method> = { [P in keyof Paths]: Paths[P] extends { [K in M]: { responses: unknown } } ? P : never }[keyof Paths];
type Operation<P extends keyof Paths, M extends Method> = M extends keyof Paths[P] ? NonNullable<Paths[P][M]> : never;

/** The body of a successful response. */
export type ResponseBody<P extends keyof Paths, M extends Method> =
  Operation<P, M> extends { responses: infer R }
    ? R extends { 200: infer A }
      ? Json<A>
      : R extends { 201: infer A }
        ? Json<A>
        : undefined
    : never;

/** Parameters of a request. Those that the path names are put into the path, the others into the query. */
export type Params = Record<string, string | number | undefined>;

export interface RequestOptions {
  body?: unknown;
  /** An ETag, or `*`. */
  ifMatch?: string | undefined;
  ifNoneMatch?: string | undefined;
  signal?: AbortSignal | undefined;
}

export interface Reply<T> {
  status: number;
  data: T;
  etag: string | undefined;
  /** Whether Redis confirmed that every instance sees the change; null without Redis, and if a ramp changes but its flag does not. */
  invalidated: boolean | null;
  headers: Headers;
}

/** Keys that cannot be part of a path are sent in the query, with `-` in their place. */
const UNSAFE = /[/\\?#%]|^\.{1,2}$|^-$|^stale$/;

/** The address of a request. */
export function urlOf(pattern: string, params: Params = {}): string {
  const query = { ...params };
  const path = pattern.replace(/\{(\w+)\}/g, (_, name: string) => {
    const value = String(params[name]);
    if ((name === 'flagKey' || name === 'userId') && UNSAFE.test(value)) return '-';
    delete query[name];
    return encodeURIComponent(value);
  });
  return apiUrl(withQuery(path, query));
}

/** The request as a curl command. */
export function curlOf<M extends Method>(method: M, pattern: PathOf<M>, params: Params, { ifMatch, body }: RequestOptions = {}): string {
  return curl({ method: method.toUpperCase(), url: urlOf(pattern, params), ifMatch, body });
}

/** A request that can be sent, and shown as a command. */
export function request<M extends Method, P extends PathOf<M>>(method: M, pattern: P, params: Params, options: RequestOptions = {}) {
  return { send: () => send(method, pattern, params, options), curl: () => curlOf(method, pattern, params, options) };
}

/** Sends a request. Fails with an `ApiError`, or with the signal's reason if it was aborted. */
export async function send<M extends Method, P extends PathOf<M>>(
  method: M,
  pattern: P,
  params: Params = {},
  options: RequestOptions = {},
): Promise<Reply<ResponseBody<P, M>>> {
  const url = urlOf(pattern, params);
  let [response, text, token] = await attempt(method, url, options);
  if (response.status === 401 && (await renewToken())) [response, text, token] = await attempt(method, url, options);
  if (response.status === 401) sessionEnded(token);
  // A proxy in between may answer with something other than JSON.
  const body = tryJson(text);
  const error = response.status === 304 || response.ok ? null : errorOf(response.status, body);
  // Every other response shows that the service works. If it did not end the trouble, each check of /health would start
  // the same requests again.
  if (error?.transient) connectionFailed(error);
  else connectionWorks();
  if (error) throw error;
  tokenAccepted(token);
  const invalidated = response.headers.get('x-cache-invalidated');
  return {
    status: response.status,
    data: body as ResponseBody<P, M>,
    etag: response.headers.get('etag') ?? undefined,
    invalidated: invalidated === null ? null : invalidated === 'true',
    headers: response.headers,
  };
}

/** Sends a request once. Returns the response, its text, and the token with which the request was sent. */
async function attempt(method: Method, url: string, options: RequestOptions): Promise<[Response, string, string | null]> {
  const headers: Record<string, string> = {};
  const token = accessToken();
  if (token !== null) headers['authorization'] = `Bearer ${token}`;
  if (options.ifMatch !== undefined) headers['if-match'] = options.ifMatch;
  if (options.ifNoneMatch !== undefined) headers['if-none-match'] = options.ifNoneMatch;
  if (options.body !== undefined) headers['content-type'] = 'application/json';
  const [response, text] = await fetchText(url, {
    method: method.toUpperCase(),
    headers,
    body: JSON.stringify(options.body),
    cache: 'no-store',
    credentials: 'omit',
    signal: options.signal ?? null,
  });
  return [response, text, token];
}

/** For `catch`: any other error is a defect of the console, and is shown in the same way. */
export function asApiError(error: unknown): ApiError {
  if (error instanceof ApiError) return error;
  return new ApiError(0, error instanceof Error ? error.message : String(error));
}
