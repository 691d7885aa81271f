// Changing a flag: with its ETag, a message that offers Undo, and both sides after a conflict.
import type { ComponentChildren } from 'preact';
import { asApiError, curlOf, send, type Reply, type Schemas } from '../../api/client.ts';
import { useAction, type Action } from '../../components/ActionForm.tsx';
import { Diff } from '../../components/Diff.tsx';
import { ConflictView, type Conflict } from '../../components/feedback.tsx';
import { toast, type Confirmation } from '../../components/overlays.tsx';
import { change, reloadAll } from '../../data.ts';
import { changeSentences } from '../../sentences.ts';
import { flagTexts, texts } from '../../strings.ts';

export type Flag = Schemas['FlagDefinition'];
export interface FlagChange {
  enabled?: boolean;
  rolloutPercentage?: number;
  description?: string | null;
  salt?: string | null;
  bucketing?: Schemas['FlagDefinition']['bucketing'];
  definition?: unknown;
}

export const FLAG = '/api/admin/flags/{flagKey}';
/** The parameters of requests about a flag. */
export const flagParams = (env: string, flagKey: string) => ({ flagKey, environment: env });

type ChangeReply = Pick<Reply<unknown>, 'invalidated'>;

/** What was saved, and whether every instance sees it. */
export function savedText(what: string, { invalidated }: ChangeReply): string {
  return `${what} ${invalidated === false ? texts.saved.unconfirmed : texts.saved.confirmed}`;
}

/** The message after a change. `undo` makes the change that takes it back. */
export function saved(what: string, reply: ChangeReply, undo?: () => Promise<ChangeReply>): void {
  toast(savedText(what, reply), { undo: undo && (() => attempt(async () => saved(texts.undone, await undo()))) });
}

/** The `curl` and `run` of a confirmation: `run` sends the request and shows `what` as a message, with Undo if given. */
export function withReport<R extends ChangeReply>({ send, curl }: { send: () => Promise<R>; curl: () => string }, what: string, undo?: (reply: R) => Promise<ChangeReply>): Pick<Confirmation, 'curl' | 'run'> {
  return {
    curl,
    run: () => attempt(async () => {
      const reply = await send();
      saved(what, reply, undo && (() => undo(reply)));
    }),
  };
}

/** Runs a change. An error becomes a message that stays, and the result is null. */
export async function attempt<T>(run: () => Promise<T>): Promise<T | null> {
  try {
    return await run();
  } catch (error) {
    toast(asApiError(error).message, { tone: 'bad' });
    return null;
  }
}

export function changeCurl(env: string, key: string, change: FlagChange, ifMatch?: string): string {
  return curlOf('patch', FLAG, flagParams(env, key), { body: change, ifMatch });
}

/** Sends a change. The message offers to put the values `before` back, if nobody has changed the flag by then. */
export async function changeFlag(env: string, key: string, body: FlagChange, before: FlagChange | undefined, ifMatch: string, what: string): Promise<void> {
  const put = (values: FlagChange, tag: string | undefined) => change('patch', FLAG, flagParams(env, key), { body: values, ifMatch: tag });
  const reply = await put(body, ifMatch);
  saved(what, reply, before && (() => put(before, reply.etag)));
}

/**
 * One of several changes: the name of its flag in messages, and a function that sends its requests. It must not send two
 * requests to the same route, because `runSteps` paces the steps by the rate limit of one route.
 */
export type Step = readonly [name: string, run: () => Promise<unknown>];

/** Changes several flags, one after the other, and reports how many fail, with the first ten. Returns whether all succeeded. */
export async function runSteps(steps: readonly Step[]): Promise<boolean> {
  const failed: string[] = [];
  for (const [name, run] of steps) {
    try {
      await run();
    } catch (error) {
      failed.push(`${name}: ${asApiError(error).message}`);
    }
    // API Gateway rejects more than 20 requests a second to a route, after a burst of 40 (template.yaml).
    await new Promise((done) => setTimeout(done, 50));
  }
  await reloadAll();
  if (failed.length > 0) toast(failed.slice(0, 10).join(' ') + (failed.length > 10 ? ` (${failed.length})` : ''), { tone: 'bad' });
  return failed.length === 0;
}

/** A message about several changes. Undo runs all `steps`. */
export function toastWithUndo(text: string, steps: readonly Step[]): void {
  const undo = async () => {
    toast(texts.undoing);
    if (await runSteps(steps)) toast(texts.undone);
  };
  toast(text, steps.length > 0 ? { undo } : {});
}

/** Restores an archived flag, which leaves it off; it is turned on again if it was on before. The caller reloads the page. */
export async function restoreFlag(env: string, { key, enabled }: Pick<Flag, 'key' | 'enabled'>, ifMatch: string | undefined): Promise<ChangeReply> {
  const restored = await send('post', `${FLAG}/restore`, flagParams(env, key), { ifMatch });
  return enabled ? send('patch', FLAG, flagParams(env, key), { ifMatch: restored.etag, body: { enabled } }) : restored;
}

/** The previous values of the fields that a change sets. An unreadable definition cannot be put back. */
function previous(flag: Flag, change: FlagChange): FlagChange | undefined {
  return flag.broken ? undefined : Object.fromEntries(Object.keys(change).map((field) => [field, flag[field as keyof FlagChange]]));
}

/** The state of saving one form. */
export interface Saving extends Action {
  save(base: Flag, change: FlagChange, ifMatch: string, what: string): Promise<void>;
}

/** `ended` is called after the change was saved, to reset the form. */
export function useSaving(env: string, ended: () => void): Saving {
  const action = useAction();
  return {
    ...action,
    save: (base, change, ifMatch, what) => action.run(async () => {
      await changeFlag(env, base.key, change, previous(base, change), ifMatch, what);
      ended();
    }),
  };
}

interface ConflictProps extends Pick<Conflict, 'apply' | 'discard'> {
  /** The flag that the form started from. */
  base: Flag;
  /** The stored flag, which has changed since. */
  flag: Flag;
  /** What `apply` saves. */
  change: FlagChange;
}

/** Both changes of a flag that has changed while it was edited. */
export function FlagConflict({ base, flag, change, ...choice }: ConflictProps) {
  return <ConflictView theirs={differences(base, flag)} mine={differences(flag, { ...flag, ...change } as Flag)} {...choice} />;
}

function differences(before: Flag, after: Flag): ComponentChildren[] {
  const sentences: ComponentChildren[] = changeSentences(before, after);
  if (JSON.stringify(before.definition) === JSON.stringify(after.definition)) return sentences;
  return [...sentences, <Diff label={flagTexts.definition} before={before.definition} after={after.definition} />];
}
