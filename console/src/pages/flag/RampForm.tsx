// Starting a ramp: steps from a template, guards, and what an alarm does.
import { useState } from 'preact/hooks';
import { errorsShownAt } from '../../api/error.ts';
import { ActionForm, useAction } from '../../components/ActionForm.tsx';
import { AddButton, Button, Check, SelectField, TextField } from '../../components/controls.tsx';
import { confirmThen } from '../../components/overlays.tsx';
import { prepareChange } from '../../data.ts';
import { numberOf, withItem } from '../../forms.ts';
import { whyNotEdit } from '../../session.ts';
import { alarmActions, missingActions, rampTemplates, rampTexts } from '../../strings.ts';
import { definitionOf } from './FlagPage.tsx';
import { FLAG, flagParams, saved } from './save.tsx';
import type { TabProps } from './tabs.tsx';

interface Step { percent: string; minutes: string; evaluations: string; approval: boolean }
interface Guard { alarm: string; onMissing: 'hold' | 'rollback' | 'ignore' }

const step = (percent: number, minutes: number): Step => ({ percent: String(percent), minutes: String(minutes), evaluations: '', approval: false });
const TEMPLATES = {
  careful: [step(1, 15), step(5, 60), step(25, 240), step(100, 60)],
  quick: [step(10, 15), step(50, 60), step(100, 60)],
};
const entries = <K extends string>(names: Record<K, string>) => Object.entries(names) as [K, string][];

export function RampForm({ env, flag, etag, started }: TabProps & { started?: () => void }) {
  const above = (steps: Step[]) => (flag.definition ? steps : steps.filter(({ percent }) => Number(percent) > flag.rolloutPercentage));
  const variants = Object.keys(definitionOf(flag)?.variants ?? {});
  const [template, setTemplate] = useState<keyof typeof TEMPLATES>('careful');
  const [steps, setSteps] = useState<Step[]>(above(TEMPLATES.careful));
  const [guards, setGuards] = useState<Guard[]>([]);
  const [onAlarm, setOnAlarm] = useState<'start' | 'previous' | 'off' | 'pause'>('start');
  const [pair, setPair] = useState([variants[0] ?? '', variants[1] ?? '']);
  const action = useAction();
  const { error } = action;
  const starting = prepareChange('post', `${FLAG}/ramp`, flagParams(env, flag.key), {
    ifMatch: etag,
    body: {
      steps: steps.map(({ percent, minutes, evaluations, approval }) => ({
        percent: numberOf(percent),
        bakeSeconds: minutes.trim() === '' ? minutes : Math.round(Number(minutes) * 60),
        ...(evaluations !== '' && { minEvaluations: numberOf(evaluations) }),
        ...(approval && { approval }),
      })),
      guards,
      ...(guards.length > 0 && { onAlarm }),
      ...(flag.definition && { from: pair[0], to: pair[1] }),
    },
  });
  const start = () => action.run(async () => {
    saved(rampTexts.started(flag.key), await starting.send());
    started?.();
  });
  const why = whyNotEdit(env) ?? (flag.enabled ? steps.length > 0 ? undefined : rampTexts.noSteps(flag.definition ? 0 : flag.rolloutPercentage) : rampTexts.needsOn);
  const removing = (what: string, run: () => void) => <Button tone="quiet" label={rampTexts.remove(what)} onClick={run}>×</Button>;
  return (
    <ActionForm
      class="card fill" action={action} label={rampTexts.start} why={why} curl={starting.curl}
      more={why && <span class="muted">{why}</span>}
      submit={() => confirmThen({
        env,
        title: rampTexts.start,
        body: <p>{steps[0]?.approval ? rampTexts.confirmApproval(flag.key, env) : rampTexts.confirmStart(flag.key, env, Number(steps[0]?.percent))}</p>,
        action: rampTexts.start,
        curl: starting.curl,
        run: start,
      })}
    >
      <SelectField label={rampTexts.template} value={template} options={entries(rampTemplates)} onChange={(name) => { setTemplate(name); setSteps(above(TEMPLATES[name])); }} />
      {variants.length > 0 && (
        <div class="form-row">
          <SelectField label={rampTexts.from} value={pair[0] ?? ''} options={variants} onChange={(name) => setPair([name, pair[1] ?? ''])} errors={errorsShownAt(error, 'from')} />
          <SelectField label={rampTexts.to} value={pair[1] ?? ''} options={variants} onChange={(name) => setPair([pair[0] ?? '', name])} errors={errorsShownAt(error, 'to')} />
        </div>
      )}
      {steps.map((item, index) => {
        const change = (part: Partial<Step>) => setSteps(withItem(steps, index, { ...item, ...part }));
        const at = `steps/${index}`;
        return (
          <div key={index} class="form-row">
            <TextField type="number" label={rampTexts.percent(index + 1)} value={item.percent} onInput={(percent) => change({ percent })} errors={errorsShownAt(error, `${at}/percent`)} />
            <TextField inputMode="numeric" label={rampTexts.bake} value={item.minutes} onInput={(minutes) => change({ minutes })} errors={errorsShownAt(error, `${at}/bakeSeconds`)} />
            <TextField inputMode="numeric" label={rampTexts.evaluations} value={item.evaluations} onInput={(evaluations) => change({ evaluations })} errors={errorsShownAt(error, `${at}/minEvaluations`)} />
            <Check label={rampTexts.approval} checked={item.approval} onChange={(approval) => change({ approval })} />
            {removing(rampTexts.percent(index + 1), () => setSteps(withItem(steps, index, undefined)))}
          </div>
        );
      })}
      <div><AddButton onClick={() => setSteps([...steps, step(100, 60)])}>{rampTexts.addStep}</AddButton></div>
      {guards.map((guard, index) => (
        <div key={index} class="form-row">
          <TextField class="grow" label={rampTexts.alarm} value={guard.alarm} onInput={(alarm) => setGuards(withItem(guards, index, { ...guard, alarm }))} errors={errorsShownAt(error, `guards/${index}`)} />
          <SelectField label={rampTexts.onMissing} value={guard.onMissing} options={entries(missingActions)} onChange={(onMissing) => setGuards(withItem(guards, index, { ...guard, onMissing }))} />
          {removing(guard.alarm || rampTexts.alarm, () => setGuards(withItem(guards, index, undefined)))}
        </div>
      ))}
      {guards.length > 0 && <p class="hint">{rampTexts.alarmHint}</p>}
      {guards.length > 0 && <SelectField label={rampTexts.onAlarm} value={onAlarm} options={entries(alarmActions)} onChange={setOnAlarm} errors={errorsShownAt(error, 'onAlarm')} />}
      <div><AddButton onClick={() => setGuards([...guards, { alarm: '', onMissing: 'hold' }])}>{rampTexts.addGuard}</AddButton></div>
    </ActionForm>
  );
}
