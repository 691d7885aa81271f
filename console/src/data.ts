// Data of the API that a page shows. Known data is shown at once and revalidated with its ETag; it stays while a newer
// response is on its way, and when that fails, unless the API says that it no longer exists.
import { batch, signal, type ReadonlySignal, type Signal } from '@preact/signals-core';
import { useEffect, useMemo } from 'preact/hooks';
import { asApiError, curlOf, send, urlOf, type Method, type Params, type PathOf, type RequestOptions, type ResponseBody } from './api/client.ts';
import { ApiError } from './api/error.ts';
import { onRecovery } from './connection.ts';

/** A page shows that it is loading only after this many milliseconds. */
const LOADING_DELAY = 150;
/** Data that is younger is not requested again when another page shows it. */
const FRESH = 1_000;
/** Above this number, the oldest entries that no page uses are removed. */
const MAX_ENTRIES = 60;

export interface Resource<T> {
  data: ReadonlySignal<T | undefined>;
  etag: ReadonlySignal<string | undefined>;
  /** Of the last attempt. */
  error: ReadonlySignal<ApiError | undefined>;
  /** There is no data, and a request takes longer than `LOADING_DELAY`: the page shows that it is loading. */
  slow: ReadonlySignal<boolean>;
  reload(): Promise<void>;
}

export class Entry<T> implements Resource<T> {
  readonly data: Signal<T | undefined> = signal(undefined);
  readonly etag: Signal<string | undefined> = signal(undefined);
  readonly error: Signal<ApiError | undefined> = signal(undefined);
  readonly slow = signal(false);
  users = 0;
  private loadedAt = 0;
  private running: AbortController | undefined;

  constructor(
    readonly url: string,
    private readonly read: Read<T>,
  ) {}

  refresh(): void {
    // Requests of several components, or of a timer, do not abort one that is under way.
    if (!this.running && Date.now() - this.loadedAt > FRESH) void this.reload();
  }

  async reload(): Promise<void> {
    // The response to an earlier request, perhaps from before a change, must not replace the response to a later one.
    this.abort();
    this.running = new AbortController();
    const { signal } = this.running;
    const timer = setTimeout(() => {
      this.slow.value = this.data.value === undefined;
    }, LOADING_DELAY);
    const result = await this.read({ signal, ifNoneMatch: this.etag.value }).catch(asApiError);
    clearTimeout(timer);
    if (signal.aborted) return;
    this.running = undefined;
    batch(() => {
      this.slow.value = false;
      this.error.value = result instanceof ApiError ? result : undefined;
      if (result instanceof ApiError) {
        if (result.status === 404) this.data.value = this.etag.value = undefined;
        return;
      }
      this.loadedAt = Date.now();
      if (result.status === 304) return;
      this.data.value = result.data;
      this.etag.value = result.etag;
    });
  }

  abort(): void {
    this.running?.abort();
    this.running = undefined;
    this.slow.value = false;
  }
}

const cache = new Map<string, Entry<unknown>>();

type Read<T> = (options: RequestOptions) => Promise<{ status: number; data: T; etag: string | undefined }>;

/** Exported for its test. */
export function entryOf<T>(url: string, read: Read<T>): Entry<T> {
  const entry = (cache.get(url) ?? new Entry(url, read)) as Entry<T>;
  // Last, so that it is removed last: a page that is being opened uses it, although it is not yet counted in `users`.
  cache.delete(url);
  cache.set(url, entry as Entry<unknown>);
  for (const [key, old] of cache) {
    if (cache.size <= MAX_ENTRIES) break;
    if (old.users === 0 && old.url !== url) cache.delete(key);
  }
  return entry;
}

/**
 * The response of a GET, shared by all components that ask for it. `every` repeats the request after that many
 * milliseconds while the page is visible.
 */
export function useResource<P extends PathOf<'get'>>(
  pattern: P,
  params?: Params,
  every?: number,
): Resource<ResponseBody<P, 'get'>> {
  return useLoader(urlOf(pattern, params), (options) => send('get', pattern, params, options), every);
}

/** Like `useResource`, for data of several responses. `url` identifies it. */
export function useLoader<T>(url: string, read: Read<T>, every?: number): Resource<T> {
  const entry = useMemo(() => entryOf(url, read), [url]);
  useEffect(() => {
    entry.users += 1;
    // `reloadAll` forgets it if it runs between the rendering and this effect.
    cache.set(url, entry as Entry<unknown>);
    entry.refresh();
    const timer = every === undefined ? undefined : setInterval(() => {
      if (!document.hidden) entry.refresh();
    }, every);
    return () => {
      clearInterval(timer);
      entry.users -= 1;
      if (entry.users === 0) entry.abort();
    };
  }, [entry]);
  return entry;
}

/** Requests everything on the page again, and forgets everything else. */
export async function reloadAll(): Promise<void> {
  const reloads: Promise<void>[] = [];
  for (const [key, entry] of cache) {
    if (entry.users > 0) reloads.push(entry.reload());
    else cache.delete(key);
  }
  await Promise.all(reloads);
}

/** Sends a change, then reloads the data of the page. It is also reloaded after a conflict with another change. */
export async function change<M extends Method, P extends PathOf<M>>(method: M, pattern: P, params: Params, options?: RequestOptions) {
  try {
    const reply = await send(method, pattern, params, options);
    await reloadAll();
    return reply;
  } catch (error) {
    if (asApiError(error).conflict) await reloadAll();
    throw error;
  }
}

/** A change that a dialog can send, or show as a curl command. Nothing is sent before `send` is called. */
export function prepareChange<M extends Method, P extends PathOf<M>>(method: M, pattern: P, params: Params, options?: RequestOptions) {
  return { send: () => change(method, pattern, params, options), curl: () => curlOf(method, pattern, params, options) };
}

export function startRevalidation(): void {
  onRecovery(() => void reloadAll());
  addEventListener('visibilitychange', () => {
    if (!document.hidden) for (const entry of cache.values()) if (entry.users > 0) entry.refresh();
  });
}
