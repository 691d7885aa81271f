// Who is signed in, and what they may do.
import { computed, effect, signal } from '@preact/signals-core';
import { send, asApiError, type Schemas } from './api/client.ts';
import type { ApiError } from './api/error.ts';
import { signedIn } from './auth.ts';
import { productionNames } from './config.ts';
import { environmentInAddress } from './router.ts';
import { texts } from './strings.ts';

export const me = signal<Schemas['Me'] | null>(null);
/** The names of all environments. */
export const environments = signal<string[]>([]);
/** Why `me` or `environments` could not be read. */
export const sessionError = signal<ApiError | null>(null);

const LAST = 'pennon.environment';
const last = signal(sessionStorage.getItem(LAST) ?? 'production');

/** The environment in the address, otherwise the one that was last visited. */
export const environment = computed(() => environmentInAddress.value ?? last.value);

effect(() => {
  const current = environmentInAddress.value;
  if (current !== null) {
    last.value = current;
    sessionStorage.setItem(LAST, current);
  }
});

/** Whether the caller may change flags of an environment. */
export function mayEdit(name: string): boolean {
  const may = me.value?.may;
  return may !== undefined && (may.edit === true || may.edit.includes(name));
}

function mayAdmin(): boolean {
  return me.value?.may.admin ?? false;
}

/** For a control that changes flags: why it is disabled, or undefined. */
export function whyNotEdit(name: string): string | undefined {
  return mayEdit(name) ? undefined : texts.needsRole(`editor:${name}`);
}

export function whyNotAdmin(): string | undefined {
  return mayAdmin() ? undefined : texts.needsRole('admin');
}

export async function loadSession(): Promise<void> {
  try {
    const [who, list] = await Promise.all([send('get', '/api/admin/me'), readEnvironments()]);
    me.value = who.data;
    environments.value = list;
    sessionError.value = null;
  } catch (error) {
    if (signedIn.value) sessionError.value = asApiError(error);
  }
}

export async function reloadEnvironments(): Promise<void> {
  environments.value = await readEnvironments();
}

/** The API lists production from its first flag on; until then it can be opened and compared too. */
async function readEnvironments(): Promise<string[]> {
  const { data } = await send('get', '/api/admin/environments');
  return [...new Set([...data.environments.map((known) => known.environment), ...productionNames()])];
}
