// Changes of a flag at a time: list, add, cancel.
import { useState } from 'preact/hooks';
import { send, urlOf, type Schemas } from '../../api/client.ts';
import { errorsShownAt } from '../../api/error.ts';
import { updateSentence } from '../../audit.ts';
import { ActionForm, useAction } from '../../components/ActionForm.tsx';
import { Button, SelectField, Tag, TextField } from '../../components/controls.tsx';
import { Banner, Loaded } from '../../components/feedback.tsx';
import { confirmProduction, confirmThen, toast } from '../../components/overlays.tsx';
import { prepareChange, useLoader } from '../../data.ts';
import { time, zone } from '../../format.ts';
import { numberOf } from '../../forms.ts';
import { whyNotEdit } from '../../session.ts';
import { rampTexts } from '../../strings.ts';
import { attempt, FLAG, flagParams } from './save.tsx';
import type { TabProps } from './tabs.tsx';

const PATTERN = `${FLAG}/schedule` as const;
type Schedule = Schemas['Schedule'];

export function Schedules({ env, flag }: TabProps) {
  const target = flagParams(env, flag.key);
  const from = useLoader(urlOf(PATTERN, target), async (options) => {
    const reply = await send('get', PATTERN, target, options);
    return { ...reply, data: { list: reply.data, omitted: reply.headers.get('x-omitted-schedules') } };
  }, 10_000);
  return (
    <section class="stack">
      <h2>{rampTexts.schedules}</h2>
      <Loaded from={from}>
        {({ list, omitted }) => (
          <>
            {list.length === 0 && <p class="muted">{rampTexts.noSchedules}</p>}
            {omitted && <p>{rampTexts.omitted(omitted)}</p>}
            <ul class="audit fill">{list.map((item) => <Item key={item.id} env={env} item={item} />)}</ul>
          </>
        )}
      </Loaded>
      <Form env={env} flag={flag} />
    </section>
  );
}

function Item({ env, item }: { env: string; item: Schedule }) {
  const [what, at] = [updateSentence(item.updates), time(item.scheduledAt ?? '')];
  const cancelling = prepareChange('delete', `${PATTERN}/{id}`, { ...flagParams(env, item.flagKey), id: item.id });
  const open = item.status === 'pending' || item.status === 'unreadable';
  return (
    <li>
      <div class="row">
        <span><strong>{what}</strong>, {at} {item.createdBy && <span class="muted">· {item.createdBy}</span>}</span>
        <Tag tone={item.status === 'failed' || item.status === 'unreadable' ? 'bad' : item.status === 'pending' ? 'accent' : 'neutral'}>{item.status}</Tag>
        {open && (
          <Button
            disabledBecause={whyNotEdit(env)}
            onClick={() => confirmThen({
              env,
              title: rampTexts.unscheduleTitle(what, at, env),
              body: null,
              action: rampTexts.unschedule,
              curl: cancelling.curl,
              run: async () => {
                if (await attempt(cancelling.send)) toast(rampTexts.cancelled);
              },
            })}
          >
            {rampTexts.unschedule}
          </Button>
        )}
      </div>
      {(item.errorMessage || item.broken) && <Banner tone="bad">{item.errorMessage ?? item.broken?.reason}</Banner>}
    </li>
  );
}

function Form({ env, flag }: { env: string; flag: TabProps['flag'] }) {
  const [at, setAt] = useState('');
  const [kind, setKind] = useState<'on' | 'off' | 'share'>(flag.enabled ? 'off' : 'on');
  const [percent, setPercent] = useState('100');
  const action = useAction();
  const date = new Date(at);
  const updates = kind === 'share' ? { rolloutPercentage: numberOf(percent) as number } : { enabled: kind === 'on' };
  const scheduledAt = Number.isNaN(date.getTime()) ? '' : date.toISOString();
  const adding = prepareChange('post', PATTERN, flagParams(env, flag.key), { body: { scheduledAt, updates } });
  const why = whyNotEdit(env);
  const add = () => action.run(async () => {
    const { data } = await adding.send();
    toast(rampTexts.added(updateSentence(data.updates), time(data.scheduledAt ?? '')));
    setAt('');
  });
  return (
    <ActionForm
      class="card fill" action={action} label={rampTexts.add} why={why} curl={adding.curl}
      submit={() => confirmProduction({
        env,
        title: rampTexts.addTitle,
        body: <p>{flag.key}: {updateSentence(updates)}, {time(at)}</p>,
        action: rampTexts.add,
        curl: adding.curl,
        run: add,
      })}
    >
      <h3>{rampTexts.addTitle}</h3>
      <div class="form-row">
        <SelectField
          label={rampTexts.change}
          value={kind}
          options={[['on', rampTexts.on], ['off', rampTexts.off], ...(flag.definition ? [] : [['share', rampTexts.share] as const])]}
          onChange={setKind}
          errors={errorsShownAt(action.error, 'updates/enabled')}
        />
        {kind === 'share' && <TextField type="number" label="%" value={percent} onInput={setPercent} errors={errorsShownAt(action.error, 'updates/rolloutPercentage')} />}
        <TextField type="datetime-local" label={rampTexts.at} value={at} onInput={setAt} errors={errorsShownAt(action.error, 'scheduledAt')} />
      </div>
      <p class="hint">{rampTexts.zone(zone(Number.isNaN(date.getTime()) ? undefined : date))}</p>
    </ActionForm>
  );
}
