// Changes of a flag at a time: list, add, cancel.
import { useState } from 'preact/hooks';
import { asApiError, curlOf, send, urlOf, type Schemas } from '../../api/client.ts';
import { errorsAt, type ApiError } from '../../api/error.ts';
import { updateSentence } from '../../audit.ts';
import { Button, CurlButton, SelectField, Tag, TextField } from '../../components/controls.tsx';
import { Banner, ErrorText, Loaded } from '../../components/feedback.tsx';
import { confirmThen, toast } from '../../components/overlays.tsx';
import { isProduction } from '../../config.ts';
import { useLoader } from '../../data.ts';
import { time, zone } from '../../format.ts';
import { whyNotEdit } from '../../session.ts';
import { rampTexts, texts } from '../../strings.ts';
import { attempt, flagsChanged } from './save.tsx';
import type { TabProps } from './tabs.tsx';

const PATTERN = '/api/admin/flags/{flagKey}/schedule';
type Schedule = Schemas['Schedule'];

export function Schedules({ env, flag }: TabProps) {
  const target = { path: { flagKey: flag.key }, query: { environment: env } };
  const from = useLoader(urlOf(PATTERN, target), async (more) => {
    const reply = await send('get', PATTERN, { ...target, ...more });
    return { ...reply, data: { list: reply.data, omitted: reply.headers.get('x-omitted-schedules') } };
  }, 10_000);
  const changed = async () => {
    await from.reload();
    flagsChanged(env, flag.key);
  };
  return (
    <section class="stack">
      <h2>{rampTexts.schedules}</h2>
      <Loaded from={from}>
        {({ list, omitted }) => (
          <>
            {list.length === 0 && <p class="muted">{rampTexts.noSchedules}</p>}
            {omitted && <p>{rampTexts.omitted(omitted)}</p>}
            <ul class="audit fill">{list.map((item) => <Item key={item.id} env={env} item={item} changed={changed} />)}</ul>
          </>
        )}
      </Loaded>
      <Form env={env} flag={flag} changed={changed} />
    </section>
  );
}

function Item({ env, item, changed }: { env: string; item: Schedule; changed: () => Promise<void> }) {
  const [what, at] = [updateSentence(item.updates), time(item.scheduledAt ?? '')];
  const options = { path: { flagKey: item.flagKey, id: item.id }, query: { environment: env } };
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
              title: rampTexts.unscheduleTitle(what, at, env),
              body: isProduction(env) && <p>{texts.confirmProduction}</p>,
              action: rampTexts.unschedule,
              curl: () => curlOf('delete', `${PATTERN}/{id}`, options),
              run: async () => {
                if (await attempt(() => send('delete', `${PATTERN}/{id}`, options))) toast(rampTexts.cancelled);
                await changed();
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

function Form({ env, flag, changed }: { env: string; flag: TabProps['flag']; changed: () => Promise<void> }) {
  const [at, setAt] = useState('');
  const [kind, setKind] = useState<'on' | 'off' | 'share'>(flag.enabled ? 'off' : 'on');
  const [percent, setPercent] = useState('100');
  const [error, setError] = useState<ApiError | null>(null);
  const date = new Date(at);
  const options = () => ({
    path: { flagKey: flag.key },
    query: { environment: env },
    body: {
      scheduledAt: Number.isNaN(date.getTime()) ? '' : date.toISOString(),
      updates: kind === 'share' ? { rolloutPercentage: percent.trim() === '' ? percent : Number(percent) } : { enabled: kind === 'on' },
    },
  });
  const why = whyNotEdit(env) ?? (flag.archivedAt !== null ? rampTexts.archived : undefined);
  const add = async () => {
    setError(null);
    try {
      const { data } = await send('post', PATTERN, options());
      toast(rampTexts.added(updateSentence(data.updates), time(data.scheduledAt ?? '')));
      setAt('');
      await changed();
    } catch (cause) {
      setError(asApiError(cause));
    }
  };
  return (
    <form
      class="card fill"
      onSubmit={(event) => {
        event.preventDefault();
        if (why) return;
        if (!isProduction(env)) void add();
        else {
          confirmThen({
            title: rampTexts.addTitle,
            body: <><p>{texts.confirmProduction}</p><p>{flag.key}: {updateSentence(options().body.updates)}, {time(at)}</p></>,
            action: rampTexts.add,
            curl: () => curlOf('post', PATTERN, options()),
            run: add,
          });
        }
      }}
    >
      <h3>{rampTexts.addTitle}</h3>
      <div class="form-row">
        <SelectField
          label={rampTexts.change}
          value={kind}
          options={[['on', rampTexts.on], ['off', rampTexts.off], ...(flag.definition ? [] : [['share', rampTexts.share] as const])]}
          onChange={setKind}
          errors={errorsAt(error, 'updates/enabled')}
        />
        {kind === 'share' && <TextField type="number" label="%" value={percent} onInput={setPercent} errors={errorsAt(error, 'updates/rolloutPercentage')} />}
        <TextField type="datetime-local" label={rampTexts.at} value={at} onInput={setAt} errors={errorsAt(error, 'scheduledAt')} />
      </div>
      <p class="hint">{rampTexts.zone(zone(Number.isNaN(date.getTime()) ? undefined : date))}</p>
      {error && <Banner tone="bad"><ErrorText error={error} /></Banner>}
      <div class="row">
        <Button tone="primary" type="submit" disabledBecause={why}>{rampTexts.add}</Button>
        <CurlButton command={() => curlOf('post', PATTERN, options())} />
      </div>
    </form>
  );
}
