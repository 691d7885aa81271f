// What an import or a copy would change.
import type { Schemas } from '../api/client.ts';
import { differenceKinds, environmentTexts as t } from '../strings.ts';
import { Diff, DiffDetails } from './Diff.tsx';
import { Banner } from './feedback.tsx';

export function DifferenceView({ difference }: { difference: Schemas['Difference'] }) {
  const { settings, omitted, kept: unknownFields } = difference;
  return (
    <div class="stack">
      {(['created', 'changed', 'archived'] as const).map((kind) => difference[kind].length > 0 && (
        <section key={kind}>
          <h3>{differenceKinds[kind]}: {omitted !== undefined && t.atLeast} {difference[kind].length}</h3>
          {difference[kind].map(({ key, before, after }) => <DiffDetails key={key} before={before} after={after} label={key} />)}
        </section>
      ))}
      {settings && (
        <section>
          <h3>{t.settingsChange}</h3>
          <Diff before={settings.before} after={settings.after} label={t.settingsChange} />
        </section>
      )}
      <p>{t.unchanged(difference.unchanged)} {omitted !== undefined && t.omitted(omitted)}</p>
      {unknownFields.length > 0 && <p>{t.unknownFields}: {unknownFields.join(', ')}</p>}
      {difference.warnings.map(({ pointer, message }, index) => <Banner key={index} tone="warn">{pointer && `${pointer}: `}{message}</Banner>)}
    </div>
  );
}
