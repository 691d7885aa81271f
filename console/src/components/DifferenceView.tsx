// What an import or a copy would change.
import type { Schemas } from '../api/client.ts';
import { differenceKinds, environmentTexts as t } from '../strings.ts';
import { Diff } from './Diff.tsx';
import { Banner } from './feedback.tsx';

/** A response that would be too large names flags without their states. */
type Entry = string | { key: string; before?: unknown; after?: unknown };

export function DifferenceView({ difference }: { difference: Schemas['Difference'] }) {
  return (
    <div class="stack">
      {(['created', 'changed', 'archived'] as const).map((kind) => difference[kind].length > 0 && (
        <section key={kind}>
          <h3>{differenceKinds[kind]}: {difference[kind].length}</h3>
          {(difference[kind] as Entry[]).map((entry) => {
            const { key, before, after } = typeof entry === 'string' ? { key: entry } : entry;
            return before === undefined && after === undefined
              ? <div key={key}>{key}</div>
              : <details key={key}><summary>{key}</summary><Diff before={before} after={after} label={key} /></details>;
          })}
        </section>
      ))}
      {difference.settings && <Diff before={(difference.settings as Entry & object).before} after={(difference.settings as Entry & object).after} label={t.settingsChange} />}
      <p>{t.unchanged(difference.unchanged)} {difference.omitted !== undefined && t.omitted(difference.omitted)}</p>
      {difference.kept?.length > 0 && <p>{t.kept}: {difference.kept.join(', ')}</p>}
      {difference.warnings?.map(({ pointer, message }) => <Banner key={pointer} tone="warn">{pointer}: {message}</Banner>)}
    </div>
  );
}
