// Whether the service can be reached, for the banner at the top.
import { signal } from '@preact/signals';
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
  trouble.value = error.status === 0 ? 'offline' : 'unavailable';
  checkSoon(500);
}

export function connectionWorks(): void {
  if (trouble.value === 'offline') trouble.value = null;
}

function checkSoon(delay: number): void {
  clearTimeout(timer);
  timer = setTimeout(() => void check(), delay);
}

interface Health {
  status?: string;
  services?: { database?: string; cache?: string };
}

/** Reads /health: often while something fails, otherwise every half minute while the page is visible. */
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
  const before = trouble.value;
  trouble.value = next;
  if (before !== null && before !== 'cache' && (next === null || next === 'cache')) {
    for (const run of recoveries) run();
  }
  checkSoon(next === null ? 30_000 : 3_000);
}

export function watchConnection(): void {
  checkSoon(5_000);
}
