// Whether the service can be reached, for the banner at the top.
import { signal } from '@preact/signals-core';
import { apiUrl } from './base.ts';
import type { ApiError } from './api/error.ts';

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

/** Reads /health while the page is visible: every 3 s while something fails, otherwise every 30 s. */
async function check(): Promise<void> {
  if (document.visibilityState === 'hidden') return checkSoon(30_000);
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
  checkSoon(next === null && trouble.value === null ? 30_000 : 3_000);
  const recovered = trouble.value !== null && trouble.value !== 'cache' && (next === null || next === 'cache');
  // A healthy /health ends only `database` and `cache`. `offline` and `unavailable` end with the next request that
  // succeeds (`connectionWorks`), or when /health finds the database or the cache unhealthy instead.
  if (next !== null || trouble.value === 'database' || trouble.value === 'cache') trouble.value = next;
  if (recovered) for (const run of recoveries) run();
}

export function watchConnection(): void {
  checkSoon(5_000);
}
