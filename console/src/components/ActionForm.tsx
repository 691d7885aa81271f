// Forms that send a request: what is running, what went wrong, and the command that does the same.
import type { ComponentChildren } from 'preact';
import { useState } from 'preact/hooks';
import { asApiError } from '../api/client.ts';
import type { ApiError } from '../api/error.ts';
import { texts } from '../strings.ts';
import { Button, CurlButton } from './controls.tsx';
import { Banner } from './feedback.tsx';

export interface Action {
  busy: boolean;
  /** Of the last run. */
  error: ApiError | null;
  run(action: () => Promise<unknown>): Promise<void>;
  /** Forgets the error. */
  clear(): void;
}

/** The state of an action, such as sending a form. */
export function useAction(): Action {
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<ApiError | null>(null);
  const run = async (action: () => Promise<unknown>) => {
    setBusy(true);
    setError(null);
    try {
      await action();
    } catch (cause) {
      setError(asApiError(cause));
    }
    setBusy(false);
  };
  return { busy, error, run, clear: () => setError(null) };
}

interface Props {
  action: Pick<Action, 'busy' | 'error'>;
  submit: () => void;
  label: string;
  /** Why the form cannot be sent. */
  why: string | undefined;
  curl: () => string;
  /** Shows and resolves a conflict. If absent, a sentence asks to check what is shown. */
  conflict?: ComponentChildren;
  class?: string;
  /** More buttons. */
  more?: ComponentChildren;
  children: ComponentChildren;
}

export function ActionForm({ action: { busy, error }, submit, label, why, curl, conflict, class: name = 'stack', more, children }: Props) {
  return (
    <form
      class={name}
      noValidate
      onSubmit={(event) => {
        event.preventDefault();
        if (!busy && why === undefined) submit();
      }}
    >
      {children}
      {!busy && conflict}
      {error && !error.isAtFields && !(error.conflict && conflict) && (
        <Banner tone="bad">{error.conflict ? texts.conflict.reloaded : error.message}</Banner>
      )}
      <div class="row">
        <Button type="submit" tone="primary" busy={busy} disabledBecause={why}>{label}</Button>
        {more}
        <CurlButton command={curl} />
      </div>
    </form>
  );
}
