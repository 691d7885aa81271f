// Whether the service can be reached, for the banner at the top.
import { signal } from '@preact/signals-core';
import { signedIn } from './auth.ts';
import { apiUrl } from './base.ts';
import { ApiError } from './api/error.ts';
import { texts } from './strings.ts';

export type Trouble = 'offline' | 'unavailable' | 'cache' | 'database';

/** What does not work at the moment. */
export const trouble = signal<Trouble | null>(null);

let timer: ReturnType<typeof setTimeout> | undefined;
/** Called when the service can be reached again. */
const recoveries = new Set<() => void>();

export function onRecovery(run: () => void): void {
  recoveries.add(run);
}

export function connectionFailed(error: ApiError): void {
  const first = trouble.value === null;
  if (trouble.value !== 'database') trouble.value = error.status === 0 ? 'offline' : 'unavailable';
  checkSoon(first ? 500 : 3_000);
}

/** The error of a request to which nothing has responded. */
export function unreachable(): ApiError {
  const error = new ApiError(0, texts.offline);
  connectionFailed(error);
  return error;
}

/** Sends a request, and reads the response. Fails as `unreachable`, or with the signal's reason if it was aborted. */
export async function fetchText(url: string, init: RequestInit): Promise<[Response, string]> {
  try {
    const response = await fetch(url, init);
    return [response, await response.text()];
  } catch (cause) {
    throw init.signal?.aborted ? cause : unreachable();
  }
}

export function connectionWorks(): void {
  if (trouble.value === 'offline' || trouble.value === 'unavailable') trouble.value = null;
}

function checkSoon(delay: number): void {
  clearTimeout(timer);
  timer = setTimeout(() => void check(), delay);
}

interface Health {
  status?: string;
  services?: { database?: string; cache?: string };
}

/** Reads /health while the page is visible, and when it becomes visible: every 3 s while something fails, else every 30 s. */
async function check(): Promise<void> {
  if (document.hidden) return;
  let next: Trouble | null;
  try {
    const response = await fetch(apiUrl('/health'), { cache: 'no-store', credentials: 'omit' });
    const { services = {} } = (await response.json()) as Health;
    if (services.database === 'unhealthy') next = 'database';
    else if (services.cache === 'unhealthy') next = 'cache';
    else next = response.ok ? null : 'unavailable';
  } catch {
    next = 'offline';
  }
  const before = trouble.value;
  checkSoon(next || before ? 3_000 : 30_000);
  // While somebody is signed in, a healthy /health ends only `database` and `cache`. `offline` and `unavailable` end with
  // the next response of the API (`connectionWorks`), or when /health finds the database or the cache unhealthy instead.
  if (next || !signedIn.value || before === 'database' || before === 'cache') trouble.value = next;
  // Without a token, the requests would be rejected, as if somebody had tried to sign in.
  if (signedIn.value && before && before !== 'cache' && (!next || next === 'cache')) for (const run of recoveries) run();
}

export function watchConnection(): void {
  checkSoon(5_000);
  addEventListener('visibilitychange', () => void check());
}
