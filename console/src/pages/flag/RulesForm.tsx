// The rules of a flag as a form.
import { useState } from 'preact/hooks';
import { errorsShownAt, type ApiError } from '../../api/error.ts';
import { sameJson, type Json } from '../../api/json.ts';
import { SplitBar } from '../../components/SplitBar.tsx';
import { AddButton, Button, Check, Errors, Select } from '../../components/controls.tsx';
import { withChosen, withItem } from '../../forms.ts';
import {
  fieldText, groupSentence, only, OPERATORS, outcomeSentence, parseField,
  type Bucket, type Condition, type Group, type Operator, type Outcome, type Rule, type RuleForm,
} from '../../rules.ts';
import { rulesTexts } from '../../strings.ts';

interface Context {
  variants: readonly string[];
  defaultVariant: string | undefined;
  segments: readonly string[];
  error: ApiError | null;
}

function swapped<T>(list: readonly T[], a: number, b: number): T[] {
  const copy = [...list];
  [copy[a], copy[b]] = [copy[b]!, copy[a]!];
  return copy;
}

const newCondition: Condition = { kind: 'compare', attribute: '', operator: '==', value: '', negated: undefined };

export function RulesForm({ form, onChange, ...context }: Context & { form: RuleForm; onChange: (form: RuleForm) => void }) {
  const { rules, otherwise } = form;
  const setRules = (next: Rule[]) => onChange({ ...form, rules: next });
  const first = context.variants[0];
  return (
    <div class="stack">
      {rules.length === 0 && otherwise === undefined && <p class="muted">{rulesTexts.noRules}</p>}
      {rules.map((rule, index) => (
        <fieldset key={index} class="fill stack">
          <legend>{rulesTexts.rule(index + 1)}</legend>
          <p>
            {rulesTexts.if} {groupSentence(rule.when)} → <strong>{outcomeSentence(rule.then, context.defaultVariant)}</strong>
          </p>
          <GroupFields group={rule.when} segments={context.segments} onChange={(when) => setRules(withItem(rules, index, { ...rule, when }))} />
          <TargetingErrors error={context.error} at={`if/${2 * index}`} />
          <OutcomeFields label={`${rulesTexts.rule(index + 1)}: ${rulesTexts.outcome}`} outcome={rule.then} context={context} onChange={(then) => setRules(withItem(rules, index, { ...rule, then }))} />
          <TargetingErrors error={context.error} at={`if/${2 * index + 1}`} />
          <div class="row">
            {index > 0 && <Button tone="quiet" onClick={() => setRules(swapped(rules, index, index - 1))}>{rulesTexts.up}</Button>}
            {index + 1 < rules.length && <Button tone="quiet" onClick={() => setRules(swapped(rules, index, index + 1))}>{rulesTexts.down}</Button>}
            <Button tone="quiet" label={rulesTexts.removeItem(rulesTexts.rule(index + 1))} onClick={() => setRules(withItem(rules, index, undefined))}>{rulesTexts.remove}</Button>
          </div>
        </fieldset>
      ))}
      <AddButton
        onClick={() => setRules([...rules, {
          when: { join: undefined, conditions: [newCondition] },
          then: first === undefined ? { kind: 'default' } : { kind: 'variant', name: first },
        }])}
      >
        {rulesTexts.addRule}
      </AddButton>
      <fieldset class="fill stack">
        <legend>{rulesTexts.otherwise}</legend>
        <OutcomeFields label={rulesTexts.otherwise} outcome={otherwise ?? { kind: 'default' }} context={context} onChange={(next) => onChange({ ...form, otherwise: next.kind === 'default' && otherwise === undefined ? undefined : next })} />
        <TargetingErrors error={context.error} at={rules.length === 0 ? 'fractional' : `if/${2 * rules.length}`} />
      </fieldset>
    </div>
  );
}

function TargetingErrors({ error, at }: { error: ApiError | null; at: string }) {
  return <Errors errors={errorsShownAt(error, `definition/targeting/${at}`)} />;
}

function GroupFields({ group, segments, onChange }: { group: Group; segments: readonly string[]; onChange: (group: Group) => void }) {
  const { join, conditions } = group;
  const set = (next: Condition[]) => onChange({ join: join ?? (next.length === 1 ? undefined : 'and'), conditions: next });
  return (
    <div class="stack">
      {(conditions.length > 1 || join !== undefined) && (
        <Select
          label={rulesTexts.if} value={join ?? 'and'} onChange={(next) => onChange({ ...group, join: next })}
          options={[['and', rulesTexts.join.and], ['or', rulesTexts.join.or]]}
        />
      )}
      {conditions.map((condition, index) => (
        <div key={index} class="row condition">
          <ConditionFields condition={condition} segments={segments} onChange={(next) => set(withItem(conditions, index, next))} />
          {conditions.length > 1 && (
            <Button tone="quiet" label={rulesTexts.removeItem(groupSentence({ join: undefined, conditions: [condition] }))} onClick={() => set(withItem(conditions, index, undefined))}>
              {rulesTexts.remove}
            </Button>
          )}
        </div>
      ))}
      <div class="row">
        <AddButton tone="quiet" onClick={() => set([...conditions, newCondition])}>{rulesTexts.addCondition}</AddButton>
        {segments[0] !== undefined && (
          <Button tone="quiet" onClick={() => set([...conditions, { kind: 'segment', name: segments[0] ?? '', negated: undefined }])}>{rulesTexts.addSegment}</Button>
        )}
      </div>
    </div>
  );
}

function ConditionFields({ condition, segments, onChange }: { condition: Condition; segments: readonly string[]; onChange: (condition: Condition) => void }) {
  if (condition.kind === 'json') return <code title={rulesTexts.otherJson}>{JSON.stringify(condition.json)}</code>;
  const not = (
    <Check label={rulesTexts.not} checked={condition.negated !== undefined} onChange={(negated) => onChange({ ...condition, negated: negated ? 'list' : undefined })} />
  );
  if (condition.kind === 'segment') {
    return (
      <>
        {rulesTexts.segment}
        <Select label={rulesTexts.segment} value={condition.name} options={withChosen(segments, condition.name)} onChange={(name) => onChange({ ...condition, name })} />
        {not}
      </>
    );
  }
  const setOperator = (operator: Operator) => {
    const { value } = condition;
    const values = Array.isArray(value) ? value : value === '' ? [] : [value];
    const [first = ''] = values;
    onChange({ ...condition, operator, value: operator === 'in' ? values : parseField(operator, fieldText(operator, first)) });
  };
  return (
    <>
      <input class="attribute" list="attributes" aria-label={rulesTexts.attribute} placeholder={rulesTexts.attribute} value={condition.attribute} spellcheck={false} onInput={(event) => onChange({ ...condition, attribute: event.currentTarget.value })} />
      <Select label={rulesTexts.operator} value={condition.operator} options={OPERATORS} onChange={setOperator} />
      <ValueField {...condition} onChange={(value) => onChange({ ...condition, value })} />
      {not}
    </>
  );
}

/** Keeps what is being typed, such as `1.0` on the way to `1.05`, as long as it means the value. */
function ValueField({ operator, value, onChange }: { operator: Operator; value: Json; onChange: (value: Json) => void }) {
  const shown = fieldText(operator, value);
  const [typed, setTyped] = useState(shown);
  const text = sameJson(parseField(operator, typed), value) ? typed : shown;
  return (
    <input
      class="value" aria-label={rulesTexts.comparedTo} placeholder={operator === 'in' ? 'DE, AT' : rulesTexts.comparedTo} value={value === '' ? '' : text} spellcheck={false}
      onInput={(event) => {
        setTyped(event.currentTarget.value);
        onChange(parseField(operator, event.currentTarget.value));
      }}
    />
  );
}

interface OutcomeProps {
  label: string;
  outcome: Outcome;
  context: Context;
  onChange: (outcome: Outcome) => void;
}

function OutcomeFields({ label, outcome, context, onChange }: OutcomeProps) {
  const { variants } = context;
  // Names that are no longer variants stay selectable, so that the form shows what the rule says.
  const names = outcome.kind === 'variant' ? withChosen(variants, outcome.name) : variants;
  const value = outcome.kind === 'variant' ? `=${outcome.name}` : outcome.kind;
  const choose = (next: string) => {
    if (next.startsWith('=')) onChange({ kind: 'variant', name: next.slice(1) });
    else if (next === 'default') onChange({ kind: 'default' });
    else if (next === 'split') {
      onChange({ kind: 'split', by: undefined, buckets: variants.map((variant) => ({ variant, weight: Math.floor(100 / Math.max(1, variants.length)) })) });
    }
  };
  return (
    <div class="stack fill">
      <label class="row">
        {rulesTexts.then}
        <Select
          label={label} value={value} onChange={choose}
          options={[
            ...names.map((name) => [`=${name}`, name] as const),
            ['default', rulesTexts.outcomes.default], ['split', rulesTexts.outcomes.split],
            ...(outcome.kind === 'json' ? [['json', rulesTexts.outcomes.json] as const] : []),
          ]}
        />
      </label>
      {outcome.kind === 'json' && <code title={rulesTexts.otherJson}>{JSON.stringify(outcome.json)}</code>}
      {outcome.kind === 'split' && <SplitFields split={outcome} variants={variants} onChange={onChange} />}
    </div>
  );
}

type Split = Extract<Outcome, { kind: 'split' }>;

function SplitFields({ split, variants, onChange }: { split: Split; variants: readonly string[]; onChange: (split: Split) => void }) {
  const { by, buckets } = split;
  const attribute = by === undefined ? '' : only(by, 'var');
  const set = (next: Bucket[]) => onChange({ ...split, buckets: next });
  return (
    <div class="stack fill">
      <SplitBar buckets={buckets} />
      {buckets.map((bucket, index) => {
        return (
          <div key={index} class="row">
            <Select label={rulesTexts.outcome} value={bucket.variant} options={withChosen(variants, bucket.variant)} onChange={(variant) => set(withItem(buckets, index, { ...bucket, variant }))} />
            <input
              type="number" min={0} aria-label={`${rulesTexts.weight}: ${bucket.variant}`} value={bucket.weight ?? 1}
              onInput={(event) => set(withItem(buckets, index, { ...bucket, weight: Number(event.currentTarget.value) }))}
            />
            {buckets.length > 1 && <Button tone="quiet" label={rulesTexts.removeItem(bucket.variant)} onClick={() => set(withItem(buckets, index, undefined))}>{rulesTexts.remove}</Button>}
          </div>
        );
      })}
      <AddButton tone="quiet" onClick={() => set([...buckets, { variant: variants.find((name) => !buckets.some(({ variant }) => variant === name)) ?? variants[0] ?? '', weight: 0 }])}>
        {rulesTexts.addSplit}
      </AddButton>
      {typeof attribute !== 'string' ? <code title={rulesTexts.otherJson}>{JSON.stringify(by)}</code> : (
        <label class="row">
          {rulesTexts.by}
          <input class="attribute" list="attributes" value={attribute} placeholder={rulesTexts.byUser} title={rulesTexts.byHint} onInput={(event) => {
            const name = event.currentTarget.value;
            onChange({ ...split, by: name === '' ? undefined : { var: name } });
          }} />
        </label>
      )}
    </div>
  );
}
