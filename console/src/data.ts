// Data of the API that a page shows. Known data is shown at once and revalidated with its ETag; it stays while a newer
// response is on its way, and when that fails.
import { batch, signal, type ReadonlySignal, type Signal } from '@preact/signals';
import { useEffect, useMemo } from 'preact/hooks';
import { asApiError, curlOf, send, urlOf, type Answer, type Method, type Params, type PathOf, type RequestOptions } from './api/client.ts';
import type { ApiError } from './api/error.ts';
import { onRecovery } from './connection.ts';

/** No spinner before this many milliseconds. */
const PATIENCE = 150;
/** Data that is younger is not requested again when another page shows it. */
const FRESH = 1_000;
const KEPT = 60;

export interface Resource<T> {
  data: ReadonlySignal<T | undefined>;
  etag: ReadonlySignal<string | undefined>;
  /** Of the last attempt. */
  error: ReadonlySignal<ApiError | undefined>;
  /** Whether a first response takes longer than people notice. */
  slow: ReadonlySignal<boolean>;
  reload(): Promise<void>;
  /** Replaces the data by what a change has returned. */
  set(data: T, etag: string | undefined): void;
}

export class Entry<T> implements Resource<T> {
  readonly data: Signal<T | undefined> = signal(undefined);
  readonly etag: Signal<string | undefined> = signal(undefined);
  readonly error: Signal<ApiError | undefined> = signal(undefined);
  readonly slow = signal(false);
  users = 0;
  private loadedAt = 0;
  private running: { abort: AbortController; done: Promise<void> } | null = null;

  constructor(
    readonly url: string,
    private readonly read: Read<T>,
  ) {}

  refresh(): void {
    if (Date.now() - this.loadedAt > FRESH) void this.reload();
  }

  reload(): Promise<void> {
    // A response that was requested before a change may not replace what came after it.
    this.abort();
    const abort = new AbortController();
    const done = this.load(abort);
    this.running = { abort, done };
    return done;
  }

  private async load(abort: AbortController): Promise<void> {
    const timer = setTimeout(() => {
      this.slow.value = this.data.value === undefined;
    }, PATIENCE);
    try {
      const reply = await this.read({ signal: abort.signal, ifNoneMatch: this.etag.value });
      if (abort.signal.aborted) return;
      if (reply.status === 304) this.error.value = undefined;
      else this.set(reply.data, reply.etag);
      this.loadedAt = Date.now();
    } catch (error) {
      if (!abort.signal.aborted) this.error.value = asApiError(error);
    } finally {
      clearTimeout(timer);
      if (!abort.signal.aborted) {
        this.slow.value = false;
        this.running = null;
      }
    }
  }

  set(data: T, etag: string | undefined): void {
    this.abort();
    this.loadedAt = Date.now();
    batch(() => {
      this.data.value = data;
      this.etag.value = etag;
      this.error.value = undefined;
      this.slow.value = false;
    });
  }

  abort(): void {
    this.running?.abort.abort();
    this.running = null;
  }
}

const cache = new Map<string, Entry<unknown>>();

type Read<T> = (options: RequestOptions) => Promise<{ status: number; data: T; etag: string | undefined }>;

function entryOf<T>(url: string, read: Read<T>): Entry<T> {
  const known = cache.get(url);
  if (known) return known as Entry<T>;
  const entry = new Entry(url, read);
  cache.set(url, entry as Entry<unknown>);
  for (const [key, old] of cache) {
    if (cache.size <= KEPT) break;
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
): Resource<Answer<P, 'get'>> {
  return useLoader(urlOf(pattern, params), (options) => send('get', pattern, params, options), every);
}

/** Like `useResource`, for data of several responses. `url` identifies it. */
export function useLoader<T>(url: string, read: Read<T>, every?: number): Resource<T> {
  const entry = useMemo(() => entryOf(url, read), [url]);
  useEffect(() => {
    entry.users += 1;
    entry.refresh();
    const timer = every === undefined ? undefined : setInterval(() => {
      if (document.visibilityState === 'visible') entry.refresh();
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

/** Sends a change. When it has ended, the page shows the new state; so it does after a conflict with another change. */
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

/** A change that can be sent, and shown as a command. */
export function changing<M extends Method, P extends PathOf<M>>(method: M, pattern: P, params: Params, options?: RequestOptions) {
  return { send: () => change(method, pattern, params, options), curl: () => curlOf(method, pattern, params, options) };
}

export function startData(): void {
  onRecovery(() => void reloadAll());
  addEventListener('visibilitychange', () => {
    if (document.visibilityState === 'visible') for (const entry of cache.values()) if (entry.users > 0) entry.refresh();
  });
}
