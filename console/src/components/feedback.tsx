// States of a page: loading, failed, empty, in conflict.
import type { ComponentChildren } from 'preact';
import type { Resource } from '../data.ts';
import { texts } from '../strings.ts';
import { Button, CopyButton } from './controls.tsx';

export function Banner({ tone = 'info', children, actions }: { tone?: 'info' | 'warn' | 'bad'; children: ComponentChildren; actions?: ComponentChildren }) {
  return (
    <div class={`banner ${tone}`} role={tone === 'info' ? 'note' : 'alert'}>
      <div class="banner-text">{children}</div>
      {actions}
    </div>
  );
}

export function Empty({ title, children }: { title: string; children?: ComponentChildren }) {
  return (
    <div class="empty">
      <p class="empty-title">{title}</p>
      {children}
    </div>
  );
}

/** A list without items, and the command that makes the first one. */
export function EmptyList({ title, hint, command }: { title: string; hint: string; command: () => string }) {
  return (
    <Empty title={title}>
      <p>{hint}</p>
      <pre class="snippet" tabIndex={0}>{command()}</pre>
      <CopyButton text={command} />
    </Empty>
  );
}

/** Shows data once there is any. A failed refresh is a line above the data, which stays. */
export function Loaded<T>({ from, children }: { from: Resource<T>; children: (data: T) => ComponentChildren }) {
  const data = from.data.value;
  const error = from.error.value;
  if (data === undefined && !error) {
    return <div class="loading" role="status">{from.slow.value ? texts.loading : ''}</div>;
  }
  const retry = <Button onClick={() => void from.reload()}>{texts.retry}</Button>;
  return (
    <>
      {error && (
        <Banner tone={error.transient && data !== undefined ? 'warn' : 'bad'} actions={retry}>
          <strong>{texts.failed}</strong> {error.message}
        </Banner>
      )}
      {data !== undefined && children(data)}
    </>
  );
}

export interface Conflict {
  /** What was saved in the meantime, one line each. */
  theirs: ComponentChildren[];
  mine: ComponentChildren[];
  apply: () => void;
  discard: () => void;
}

/** Both sides of a conflict, and the choice between them. */
export function ConflictView({ theirs, mine, apply, discard }: Conflict) {
  return (
    <section class="conflict" role="alert" aria-label={texts.conflict.title}>
      <h2>{texts.conflict.title}</h2>
      <p>{texts.conflict.text}</p>
      <div class="columns">
        <Side title={texts.conflict.theirs} lines={theirs} />
        <Side title={texts.conflict.mine} lines={mine} />
      </div>
      <div class="row">
        <Button tone="primary" onClick={apply}>{texts.conflict.apply}</Button>
        <Button onClick={discard}>{texts.conflict.discard}</Button>
      </div>
    </section>
  );
}

function Side({ title, lines }: { title: string; lines: ComponentChildren[] }) {
  return (
    <div>
      <h3>{title}</h3>
      {lines.length === 0 ? <p class="muted">{texts.conflict.none}</p> : <ul>{lines.map((line, index) => <li key={index}>{line}</li>)}</ul>}
    </div>
  );
}
