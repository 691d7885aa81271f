// Variants and rules: a form and the JSON beside it. The JSON text is what both edit, so nothing gets lost between them.
import { useMemo } from 'preact/hooks';
import { pretty, sameJson } from '../../api/json.ts';
import { errorsShownAt, type ApiError } from '../../api/error.ts';
import { ActionForm } from '../../components/ActionForm.tsx';
import { AddButton, Button, Check, Errors, SelectField, TextField } from '../../components/controls.tsx';
import { Diff } from '../../components/Diff.tsx';
import { Banner, Empty } from '../../components/feedback.tsx';
import { confirmThen } from '../../components/overlays.tsx';
import { useResource } from '../../data.ts';
import { defaultOf, definitionFrom, definitionOfSimple, draftOf, mergeDefinitions, targetingFrom, type Definition, type Draft, type Problem, type ValueType } from '../../definition.ts';
import { useDraft } from '../../drafts.ts';
import { withItem } from '../../forms.ts';
import { parseRules, writeRules } from '../../rules.ts';
import { problemTexts, rulesTexts, texts } from '../../strings.ts';
import { useEvaluations, useWhyNotEdit } from './facts.ts';
import { RulesForm } from './RulesForm.tsx';
import { changeCurl, FlagConflict, useSaving, type Flag } from './save.tsx';
import type { TabProps } from './tabs.tsx';

const fieldsOf = ({ definition }: Flag) => definition && draftOf(definition as Definition);

export function RulesTab({ env, flag: latest, etag: latestEtag }: TabProps) {
  const { base, etag, draft, changed: edited, stale, edit: editFields, discard: end } = useDraft(`ruleset/${env} ${latest.key}`, latest, latestEtag, fieldsOf);
  const saving = useSaving(env, end);
  const settings = useResource('/api/admin/environments/{environment}/settings', { environment: env }).data.value;
  const { key } = latest;
  const why = useWhyNotEdit(env, key);
  const today = useEvaluations(env, key).sentence;
  const stored = base.definition as Definition | null;
  // Rules and variants belong together, so a draft has all fields and not only those that were edited.
  const edit = (change: Partial<Draft>) => editFields({ ...draft, ...change });
  const discard = () => {
    end();
    saving.clear();
  };
  const review = (ifMatch: string, before: Definition | null, definition: Definition | null, title: string, note?: string) => confirmThen({
    env,
    title,
    body: (
      <>
        <p>{today}</p>
        {note && <p>{note}</p>}
        <Diff label={rulesTexts.review} before={before} after={definition} />
      </>
    ),
    action: texts.save,
    danger: definition === null,
    curl: () => changeCurl(env, key, { definition }, ifMatch),
    run: () => saving.save(latest, { definition }, ifMatch, rulesTexts.done(key, env)),
  });
  if (!stored && !edited) {
    return (
      <div class="stack">
        <div class="fill"><Empty title={rulesTexts.simple}>
          <Button
            tone="primary" disabledBecause={why}
            onClick={() => editFields(draftOf(definitionOfSimple(latest.rolloutPercentage, latest.salt)))}
          >
            {rulesTexts.convert}
          </Button>
        </Empty></div>
      </div>
    );
  }
  const result = definitionFrom(draft, stored ?? {});
  const changed = stored === null || !('definition' in result) || !sameJson(result.definition, stored);
  const blocked = why ?? ('problem' in result ? problemText(result.problem) : changed ? undefined : rulesTexts.unchanged);
  const { error } = saving;
  const definition = 'definition' in result ? result.definition : null;
  const theirs = latest.definition as Definition | null;
  const merged = mergeDefinitions(stored, theirs, definition);
  const title = rulesTexts.reviewTitle(key, env);
  return (
    <ActionForm
      action={saving} label={rulesTexts.review} why={blocked}
      submit={() => review(etag, stored, definition, title)}
      curl={() => changeCurl(env, key, { definition: definition ?? stored }, etag)}
      conflict={stale && definition && (
        <FlagConflict base={base} flag={latest} change={{ definition: merged }} apply={() => review(latestEtag, theirs, merged, title)} discard={discard} />
      )}
      more={
        <>
          {blocked !== undefined && blocked !== rulesTexts.unchanged && <span class="muted">{blocked}</span>}
          {stored && (
            <Button tone="quiet" disabledBecause={why} onClick={() => review(etag, stored, null, rulesTexts.toSimpleTitle(key), rulesTexts.toSimpleText)}>{rulesTexts.toSimple}</Button>
          )}
        </>
      }
    >
      {edited && <Banner actions={<Button tone="quiet" onClick={discard}>{rulesTexts.reset}</Button>}>{rulesTexts.unsaved}</Banner>}
      <Variants draft={draft} problem={'problem' in result ? result.problem : null} errors={[...errorsShownAt(error, 'definition/variants'), ...errorsShownAt(error, 'definition/defaultVariant')]} onChange={edit} />
      <Targeting draft={draft} segments={Object.keys(settings?.evaluators ?? {})} error={error} errors={errorsShownAt(error, 'definition/targeting')} onChange={(targeting) => edit({ targeting })} />
      <Check label={rulesTexts.serverOnly} checked={draft.serverOnly} onChange={(serverOnly) => edit({ serverOnly })} />
    </ActionForm>
  );
}

function problemText({ kind, detail = '' }: Problem): string {
  if (kind === 'twice') return problemTexts.twice(detail);
  return kind === 'json' && detail !== '' ? rulesTexts.badJson(detail) : problemTexts[kind];
}

interface VariantsProps {
  draft: Draft;
  problem: Problem | null;
  errors: string[];
  onChange: (change: Partial<Draft>) => void;
}

const TYPES = ['boolean', 'string', 'number', 'object'] as const;
const EMPTY: Record<ValueType, string> = { boolean: 'true', string: '', number: '0', object: '{}' };

function Variants({ draft, problem, errors, onChange }: VariantsProps) {
  const { type, variants, defaultAt } = draft;
  const set = (index: number, change: Partial<Draft['variants'][number]>) => onChange({ variants: withItem(variants, index, { ...variants[index]!, ...change }) });
  const isDefault = (index: number) => <input type="radio" name="default" checked={defaultAt === index} onChange={() => onChange({ defaultAt: index })} />;
  return (
    <section class="card">
      <h2>{rulesTexts.variants}</h2>
      <SelectField
        label={rulesTexts.type} value={type} options={TYPES}
        onChange={(next) => onChange({ type: next, variants: variants.map((variant) => ({ ...variant, text: EMPTY[next] })) })}
      />
      {variants.map(({ name, text }, index) => {
        const mine = problem?.variant === index ? [problemText(problem)] : [];
        return (
          <div key={index} class="row variant">
            <TextField label={rulesTexts.name} value={name} spellcheck={false} onInput={(next) => set(index, { name: next })} />
            {type === 'boolean'
              ? <SelectField label={rulesTexts.value} value={text} options={['true', 'false']} onChange={(next) => set(index, { text: next })} />
              : <TextField class="variant-value" label={rulesTexts.value} value={text} {...(type === 'object' && { rows: Math.min(12, text.split('\n').length) })} spellcheck={false} errors={mine} onInput={(next) => set(index, { text: next })} />}
            <label class="check">
              {isDefault(index)} {rulesTexts.isDefault}
            </label>
            <Button
              tone="quiet" label={rulesTexts.removeItem(name)} disabledBecause={index === defaultAt ? rulesTexts.isDefault : undefined}
              onClick={() => onChange({ variants: withItem(variants, index, undefined), defaultAt: index < defaultAt ? defaultAt - 1 : defaultAt })}
            >
              {rulesTexts.remove}
            </Button>
          </div>
        );
      })}
      <label class="check">
        {isDefault(-1)} {rulesTexts.noDefault}
      </label>
      <Errors errors={errors} />
      <div class="row"><AddButton onClick={() => onChange({ variants: [...variants, { name: '', text: EMPTY[type] }] })}>{rulesTexts.addVariant}</AddButton></div>
    </section>
  );
}

interface TargetingProps {
  draft: Draft;
  segments: readonly string[];
  error: ApiError | null;
  errors: string[];
  onChange: (targeting: string) => void;
}

function Targeting({ draft, segments, error, errors, onChange }: TargetingProps) {
  const [json, invalid] = useMemo(() => targetingFrom(draft.targeting), [draft.targeting]);
  const form = json === undefined ? null : parseRules(json);
  return (
    <section class="card">
      <h2>{rulesTexts.rules}</h2>
      <p class="muted">{rulesTexts.rulesHint}</p>
      <div class="columns rules">
        {form
          ? (
            <RulesForm
              form={form} variants={draft.variants.map(({ name }) => name)} defaultVariant={defaultOf(draft)} segments={segments} error={error}
              onChange={(next) => onChange(pretty(writeRules(next)))}
            />
          )
          : <Banner>{invalid === undefined ? rulesTexts.noForm : rulesTexts.badJson(invalid)}</Banner>}
        <TextField
          label={rulesTexts.json} errors={invalid === undefined ? errors : [rulesTexts.badJson(invalid)]} rows={Math.min(40, Math.max(10, draft.targeting.split('\n').length + 1))}
          value={draft.targeting} spellcheck={false} onInput={onChange}
        />
      </div>
      <datalist id="attributes"><option value="targetingKey" /><option value="$flagd.timestamp" /></datalist>
    </section>
  );
}
