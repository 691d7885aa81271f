// The ramp of a flag and its scheduled changes.
import { useState } from 'preact/hooks';
import { asApiError, type Schemas } from '../../api/client.ts';
import { Button, Tag } from '../../components/controls.tsx';
import { Banner, ConflictView, Loaded } from '../../components/feedback.tsx';
import { confirmThen, toast } from '../../components/overlays.tsx';
import { Time } from '../../components/Time.tsx';
import { prepareChange, useResource } from '../../data.ts';
import { duration, time } from '../../format.ts';
import { whyNotEdit } from '../../session.ts';
import { alarmActions, alarmStates, missingActions, rampActions, rampStates, rampTexts, stepMarks } from '../../strings.ts';
import { RampForm } from './RampForm.tsx';
import { FLAG, flagParams, saved } from './save.tsx';
import { Schedules } from './Schedules.tsx';
import type { TabProps } from './tabs.tsx';

type Ramp = Schemas['RampWithEarlier'];
type Action = keyof typeof rampActions;

/** What the API allows in each state. */
const ACTIONS: Record<Ramp['state'], readonly Action[]> = {
  pending: ['advance', 'pause', 'rollback', 'cancel'],
  baking: ['advance', 'pause', 'rollback', 'cancel'],
  holding: ['advance', 'pause', 'rollback', 'cancel'],
  paused: ['resume', 'rollback', 'cancel'],
  rolledBack: ['acknowledge'],
  completed: [],
  superseded: [],
  cancelled: [],
};

function actionsOf(ramp: Ramp): readonly Action[] {
  return ramp.acknowledgedBy === null ? ACTIONS[ramp.state] : [];
}

export function RampTab(props: TabProps) {
  const { env, flag } = props;
  const [again, setAgain] = useState(false);
  const from = useResource(`${FLAG}/ramp`, flagParams(env, flag.key), 10_000);
  const none = from.error.value?.status === 404;
  return (
    <>
      <section class="stack">
        <h2>{rampTexts.ramp}</h2>
        {none ? <><p>{rampTexts.none}</p><RampForm {...props} /></> : (
          <Loaded from={from}>
            {(ramp) => (
              <>
                <RampView env={env} ramp={ramp} etag={from.etag.value ?? '*'} />
                {actionsOf(ramp).length === 0 && (again
                  ? <RampForm {...props} started={() => setAgain(false)} />
                  : <Button onClick={() => setAgain(true)} disabledBecause={whyNotEdit(env)}>{rampTexts.again}</Button>)}
                {ramp.earlier.length > 0 && (
                  <details>
                    <summary>{rampTexts.earlier}</summary>
                    <ul>{ramp.earlier.map((old) => <li key={old.id}>{line(old.createdAt, old.createdBy, old)}</li>)}</ul>
                  </details>
                )}
              </>
            )}
          </Loaded>
        )}
      </section>
      {flag.archivedAt === null && <Schedules {...props} />}
    </>
  );
}

/** `21 Nov 2026, 06:54 GMT+2: on hold, 5 % · alice · …` */
function line(at: string | null, who: string, { state, percent, reason }: Pick<Ramp, 'state' | 'percent'> & { reason?: string | null }): string {
  return [`${time(at ?? '')}: ${rampStates[state]}, ${percent} %`, who, reason].filter(Boolean).join(' · ');
}

function sentence(ramp: Ramp): string {
  return rampTexts.now(rampStates[ramp.state], ramp.percent);
}

function RampView({ env, ramp, etag }: { env: string; ramp: Ramp; etag: string }) {
  const [conflict, setConflict] = useState<Action | null>(null);
  const actions = actionsOf(ramp);
  const live = actions.length > 0 && ramp.state !== 'rolledBack';
  const requestOf = (action: Action) => prepareChange('post', `${FLAG}/ramp/${action}`, flagParams(env, ramp.flagKey), { ifMatch: etag });
  const perform = async (action: Action) => {
    setConflict(null);
    try {
      const reply = await requestOf(action).send();
      const { state, percent } = reply.data;
      saved(rampTexts.done(rampActions[action][0] ?? '', rampStates[state], percent), reply);
    } catch (cause) {
      const error = asApiError(cause);
      if (error.conflict) setConflict(action);
      else toast(error.message, { tone: 'bad' });
    }
  };
  const ask = (action: Action) => {
    const [name = '', effect] = rampActions[action];
    confirmThen({
      env,
      title: rampTexts.question(name, ramp.flagKey, env),
      body: <p>{sentence(ramp)} {effect}</p>,
      action: name,
      danger: action === 'rollback' || action === 'cancel',
      curl: requestOf(action).curl,
      run: () => perform(action),
    });
  };
  const done = ramp.state === 'completed' ? ramp.steps.length : ramp.step - 1;
  const mark = (index: number) => (index < done ? 'done' : !live ? '' : index === done ? 'now' : 'planned');
  return (
    <>
      <p role="status"><strong>{sentence(ramp)}</strong> {ramp.reason} {ramp.acknowledgedBy !== null && rampTexts.acknowledgedBy(ramp.acknowledgedBy)}</p>
      {conflict && <ConflictView theirs={[sentence(ramp)]} mine={[rampActions[conflict][0]]} apply={() => void perform(conflict)} discard={() => setConflict(null)} />}
      {actions.length > 0 && (
        <div class="row">
          {actions.map((action) => (
            <Button key={action} disabledBecause={whyNotEdit(env)} tone={action === 'rollback' ? 'danger' : 'plain'} onClick={() => ask(action)}>{rampActions[action][0]}</Button>
          ))}
        </div>
      )}
      <ol class="steps fill">
        {ramp.steps.map((step, index) => {
          const at = mark(index);
          const begun = ramp.transitions.find((change) => change.step === index + 1)?.at;
          return (
            <li key={index} class={at}>
              {at && <Tag tone={at === 'done' ? 'good' : at === 'now' ? 'accent' : 'neutral'}>{stepMarks[at]}</Tag>}{' '}
              {[
                rampTexts.step(step.percent, duration(step.bakeSeconds)),
                step.minEvaluations && rampTexts.needs(step.minEvaluations),
                step.approval && rampTexts.approval,
              ].filter(Boolean).join(' · ')}
              {begun && <span class="muted"> · <Time at={begun} /></span>}
              {ramp.state === 'baking' && at === 'now' && ramp.dueAt && <div>{rampTexts.next}: <Time at={ramp.dueAt} /> ({time(ramp.dueAt)})</div>}
            </li>
          );
        })}
      </ol>
      <h3>{rampTexts.guards}</h3>
      {ramp.guards.length === 0 ? <p class="muted">{rampTexts.noGuards}</p> : (
        <ul>{ramp.guards.map(({ alarm, onMissing, state, warning }) => {
          // The reason contains the name of the alarm, even if the guard has its ARN.
          const trouble = ramp.reason?.includes(`'${alarm.replace(/^arn:.*?:alarm:/, '')}'`) ? ramp.reason : null;
          return (
            <li key={alarm}>
              <code>{alarm}</code> <Tag tone={state === 'ok' ? 'good' : state === 'alarm' ? 'bad' : 'warn'}>{alarmStates[state]}</Tag> {trouble && <Tag tone="bad">{trouble}</Tag>}{' '}
              <span class="muted">{rampTexts.onMissing}: {missingActions[onMissing]}</span>
              {warning && <Banner tone="warn">{warning}</Banner>}
            </li>
          );
        })}</ul>
      )}
      {ramp.guards.length > 0 && <p>{rampTexts.onAlarm}: {alarmActions[ramp.onAlarm ?? 'start']}</p>}
      <details>
        <summary>{rampTexts.history}</summary>
        <ol>{ramp.transitions.map((change, index) => <li key={index}>{line(change.at, change.actor, change)}</li>)}</ol>
      </details>
    </>
  );
}
