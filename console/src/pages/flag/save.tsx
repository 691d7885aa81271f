// Changing a flag: with its ETag, a message that offers Undo, and both sides after a conflict.
import { useSignal, type Signal } from '@preact/signals';
import type { ComponentChildren } from 'preact';
import { useRef } from 'preact/hooks';
import { asApiError, curlOf, send, type Reply, type Schemas } from '../../api/client.ts';
import { ApiError } from '../../api/error.ts';
import { Diff } from '../../components/Diff.tsx';
import { Banner, ConflictView, ErrorText } from '../../components/feedback.tsx';
import { toast } from '../../components/overlays.tsx';
import { reloadAll, type Resource } from '../../data.ts';
import { changeSentences } from '../../sentences.ts';
import { flagTexts, texts } from '../../strings.ts';

export type Flag = Schemas['FlagDefinition'];
export interface FlagChange {
  enabled?: boolean;
  rolloutPercentage?: number;
  description?: string | null;
  salt?: string | null;
  definition?: unknown;
}

const PATTERN = '/api/admin/flags/{flagKey}';
const target = (env: string, key: string) => ({ flagKey: key, environment: env });

/** Requests again whatever shows the flags of an environment. */
export function flagsChanged(env: string, key: string): void {
  reloadAll(PATTERN, { flagKey: key });
  reloadAll('/api/admin/environments/{environment}/flags', { environment: env });
  reloadAll('/api/admin/environments/{environment}/audit', { environment: env });
}

/** The message after a change: what was saved, and whether every instance sees it. */
export function savedText(what: string, invalidated: boolean | null): string {
  const reach = invalidated === null ? texts.saved.withoutRedis : invalidated ? texts.saved.confirmed : texts.saved.unconfirmed;
  return `${what} ${reach}`;
}

/** Runs a change and says how it ended; an error is a message that stays. Null after an error. */
export async function attempt<T>(run: () => Promise<T>): Promise<T | null> {
  try {
    return await run();
  } catch (error) {
    toast(asApiError(error).message, { tone: 'bad' });
    return null;
  }
}

export function changeCurl(env: string, key: string, change: FlagChange, ifMatch?: string): string {
  return curlOf('patch', PATTERN, target(env, key), { body: change, ifMatch });
}

/**
 * Sends a change. The message offers to put the previous values back, if nobody has changed the flag by then. It comes
 * after `saved`, which gets the form ready for the next change.
 */
export async function changeFlag(env: string, key: string, change: FlagChange, before: FlagChange, ifMatch: string, what: string, saved?: () => Promise<void>): Promise<void> {
  const reply: Reply<unknown> = await send('patch', PATTERN, target(env, key), { body: change, ifMatch });
  flagsChanged(env, key);
  await saved?.();
  toast(savedText(what, reply.invalidated), {
    undo: async () => {
      const undone = await attempt(() => send('patch', PATTERN, target(env, key), { body: before, ifMatch: reply.etag }));
      flagsChanged(env, key);
      if (undone) toast(savedText(texts.undone, undone.invalidated));
    },
  });
}

/** A message about several changes. Undo makes those of `steps` that succeed, then calls `done`. */
export function toastWithUndo(text: string, steps: (() => Promise<unknown>)[], done: () => void): void {
  const undo = async () => {
    const results = await Promise.allSettled(steps.map((step) => step()));
    done();
    const failed = results.flatMap((result) => (result.status === 'rejected' ? [asApiError(result.reason).message] : []));
    if (failed.length > 0) toast(failed.join(' '), { tone: 'bad' });
    else toast(texts.undone);
  };
  toast(text, steps.length > 0 ? { undo } : {});
}

/** Restores an archived flag, which leaves it off; it is turned on again if it was on before. */
export async function restoreFlag(env: string, { key, enabled }: Pick<Flag, 'key' | 'enabled'>, ifMatch: string | undefined): Promise<void> {
  const { etag } = await send('post', `${PATTERN}/restore`, target(env, key), { ifMatch });
  if (enabled) await send('patch', PATTERN, target(env, key), { ifMatch: etag, body: { enabled } });
}

/** The previous values of the fields that a change sets. */
export function previous(flag: Flag, change: FlagChange): FlagChange {
  return Object.fromEntries(Object.keys(change).map((field) => [field, flag[field as keyof FlagChange]]));
}

/** The flag that a form started from: refreshes in the background do not change it while there are changes to save. */
export function useBase(flag: Flag, etag: string, changed: boolean): { flag: Flag; etag: string } {
  const base = useRef({ flag, etag });
  if (!changed) base.current = { flag, etag };
  return base.current;
}

interface Clash {
  base: Flag;
  theirs: Flag;
  etag: string;
  change: FlagChange;
  what: string;
}

/** The state of saving one form. */
export interface Saving {
  busy: Signal<boolean>;
  error: Signal<ApiError | null>;
  clash: Signal<Clash | null>;
  save(flag: Flag, change: FlagChange, ifMatch: string, what: string): Promise<void>;
  clear(): void;
}

/** `saved` ends the form that was saved, also after a conflict. */
export function useSaving(env: string, resource: Resource<Flag>, saved: () => void): Saving {
  const busy = useSignal(false);
  const error = useSignal<ApiError | null>(null);
  const clash = useSignal<Clash | null>(null);
  return {
    busy,
    error,
    clash,
    clear: () => {
      error.value = null;
      clash.value = null;
    },
    async save(flag, change, ifMatch, what) {
      busy.value = true;
      error.value = null;
      clash.value = null;
      try {
        await changeFlag(env, flag.key, change, previous(flag, change), ifMatch, what, async () => {
          // The form starts again from what is stored now.
          await resource.reload();
          saved();
        });
      } catch (cause) {
        const failure = asApiError(cause);
        if (!failure.conflict) error.value = failure;
        else {
          const theirs = await attempt(() => send('get', PATTERN, target(env, flag.key)));
          if (theirs) clash.value = { base: flag, theirs: theirs.data, etag: theirs.etag ?? '*', change, what };
        }
      } finally {
        busy.value = false;
      }
    },
  };
}

interface ProblemsProps {
  saving: Saving;
  resource: Resource<Flag>;
  /** Resets the form to the stored state. */
  discard: () => void;
  /** For changes that do not simply set fields, such as a definition that both sides have edited. */
  merge?: (clash: Clash) => FlagChange;
}

/** The result of a rejected change: an error to correct, or a conflict to resolve. */
export function SaveProblems({ saving, resource, discard, merge }: ProblemsProps) {
  const clash = saving.clash.value;
  if (saving.error.value) return <Banner tone="bad"><ErrorText error={saving.error.value} /></Banner>;
  if (!clash) return null;
  const { base, theirs, change } = clash;
  const mine = { ...base, ...change } as Flag;
  return (
    <ConflictView
      theirs={[...changeSentences(base, theirs), ...difference(base, theirs)]}
      mine={[...changeSentences(base, mine), ...difference(base, mine)]}
      apply={() => void saving.save(theirs, merge?.(clash) ?? change, clash.etag, clash.what)}
      discard={() => {
        saving.clear();
        resource.set(theirs, clash.etag);
        discard();
      }}
    />
  );
}

function difference(before: Flag, after: Flag): ComponentChildren[] {
  if (JSON.stringify(before.definition) === JSON.stringify(after.definition)) return [];
  return [<Diff key="definition" label={flagTexts.definition} before={before.definition} after={after.definition} />];
}

