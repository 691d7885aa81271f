// Keeps unsaved changes in this browser tab while the user opens other pages, reloads or signs in.
import { useMemo, useState } from 'preact/hooks';
import { parseJson, sameJson } from './api/json.ts';

/** The fields that have been edited, and the state that the first edit started from: saving is refused if that has changed. */
interface Work<T, D> {
  base: T;
  etag: string;
  draft: Partial<D>;
}

export interface DraftOf<T, D> extends Omit<Work<T, D>, 'draft'> {
  /** The latest state with the edited fields in place of its own. */
  draft: D;
  /** Whether there is something to save. */
  changed: boolean;
  /** Whether there is something to save, and the state has changed since `base`. */
  stale: boolean;
  edit(change: Partial<D>): void;
  discard(): void;
}

/** The fields of a form. `fieldsOf` returns those of the stored state. A draft ends when it equals the stored state. */
export function useDraft<T, D extends object>(name: string, latest: T, latestEtag: string, fieldsOf: (state: T) => D | null): DraftOf<T, D> {
  const key = `pennon.draft.${name}`;
  const [stored, setStored] = useState<Work<T, D> | null>(() => parseJson(sessionStorage.getItem(key) ?? 'null') as Work<T, D> | null);
  const unedited = useMemo(() => fieldsOf(latest), [latest]);
  const draft = { ...unedited, ...stored?.draft } as D;
  const changed = !sameJson(draft, { ...unedited });
  const { base, etag, draft: edited } = changed ? stored! : { base: latest, etag: latestEtag, draft: {} };
  const put = (work: Work<T, D> | null) => {
    sessionStorage.removeItem(key);
    try {
      if (work) sessionStorage.setItem(key, JSON.stringify(work));
    } catch {
      // It is too large to be kept: it ends with the form.
    }
    setStored(work);
  };
  return {
    base, etag, draft, changed,
    stale: changed && etag !== latestEtag,
    edit: (change) => put(sameJson({ ...draft, ...change }, unedited) ? null : { base, etag, draft: { ...edited, ...change } }),
    discard: () => put(null),
  };
}
