// The API keys of an environment. A new key is shown once, and is in neither the address nor any storage.
import { useState } from 'preact/hooks';
import { curlOf, type Schemas } from '../api/client.ts';
import { errorsShownAt } from '../api/error.ts';
import { ActionForm, useAction } from '../components/ActionForm.tsx';
import { Button, CopyButton, CurlButton, SelectField, Tag, TextField } from '../components/controls.tsx';
import { Banner, EmptyList, Loaded } from '../components/feedback.tsx';
import { confirmThen, SidePanel } from '../components/overlays.tsx';
import { Page } from '../components/Page.tsx';
import { Snippets } from '../components/Snippets.tsx';
import { Time } from '../components/Time.tsx';
import { VirtualTable, type Column } from '../components/VirtualTable.tsx';
import { prepareChange, useResource } from '../data.ts';
import { queryValue, setQuery } from '../router.ts';
import { whyNotAdmin } from '../session.ts';
import { useCommands } from '../shortcuts.ts';
import { keysTexts, texts } from '../strings.ts';
import { withReport } from './flag/save.tsx';

type Key = Schemas['Key'];

const PATTERN = '/api/admin/keys';
const ONE = '/api/admin/keys/{keyId}';

export function KeysPage({ env }: { env: string }) {
  const params = { environment: env };
  const resource = useResource(PATTERN, params);
  const creating = queryValue('create') === '1';
  const why = whyNotAdmin();
  const create = () => setQuery({ create: 1 }, { replace: false });
  useCommands(why === undefined ? [{ id: 'create', title: keysTexts.create, keywords: 'new add', run: create }] : [], [env, why]);
  return (
    <Page
      title={keysTexts.title(env)}
      actions={
        <>
          <CurlButton command={() => curlOf('get', PATTERN, params)} />
          <Button tone="primary" disabledBecause={why} onClick={create}>{keysTexts.create}</Button>
        </>
      }
    >
      <Loaded from={resource}>
        {({ keys }) => keys.length === 0
          ? <EmptyList title={keysTexts.none} hint={keysTexts.noneHint} command={() => curlOf('post', PATTERN, params, { body: { kind: 'server', name: 'shop backend' } })} />
          : <VirtualTable label={keysTexts.title(env)} rows={keys} columns={columnsOf(env)} keyOf={(key) => key.id} />}
      </Loaded>
      {creating && <CreatePanel key={env} env={env} onClose={() => setQuery({ create: null })} />}
    </Page>
  );
}

function columnsOf(env: string): Column<Key>[] {
  return [
    { title: keysTexts.columns.name, cell: (key) => <strong title={key.id}>{key.name}</strong> },
    {
      title: keysTexts.columns.kind,
      cell: (key) => key.revokedAt !== null ? <Tag>{keysTexts.revoked}</Tag>
        : key.kind === 'unreadable' ? <Tag tone="bad" title={key.broken ?? ''}>{keysTexts.kinds.unreadable}</Tag>
          : <Tag tone="accent">{key.kind}</Tag>,
    },
    { title: keysTexts.columns.created, class: 'wide time-column', cell: (key) => <Time at={key.createdAt} /> },
    { title: keysTexts.columns.by, class: 'wide', cell: (key) => key.createdBy },
    { title: keysTexts.columns.used, class: 'time-column', cell: (key) => <Time at={key.lastUsedOn} /> },
    {
      title: keysTexts.columns.change,
      class: 'change-column',
      cell: (key) => key.revokedAt === null && (
        <Button tone="quiet" label={`${keysTexts.revoke}: ${key.name}`} disabledBecause={whyNotAdmin()} onClick={() => revoke(env, key)}>
          {keysTexts.revoke}
        </Button>
      ),
    },
  ];
}

function revoke(env: string, key: Key): void {
  const revoking = prepareChange('delete', ONE, { keyId: key.id, environment: env });
  confirmThen({
    env,
    title: keysTexts.revokeTitle(key.name, env),
    body: <p>{keysTexts.revokeText} {key.lastUsedOn && <>{keysTexts.columns.used} <Time at={key.lastUsedOn} />.</>}</p>,
    action: keysTexts.revoke,
    danger: true,
    ...withReport(revoking, keysTexts.revokedDone(key.name)),
  });
}

function CreatePanel({ env, onClose }: { env: string; onClose: () => void }) {
  const [name, setName] = useState('');
  const [kind, setKind] = useState<Schemas['KeyKind']>('server');
  const [created, setCreated] = useState<Schemas['CreatedKey'] | null>(null);
  const action = useAction();
  const creating = prepareChange('post', PATTERN, { environment: env }, { body: { kind, name } });
  const create = () => void action.run(async () => {
    setCreated((await creating.send()).data);
  });
  if (created) {
    return (
      <SidePanel title={keysTexts.createdTitle(created.name)} onClose={onClose}>
        <div class="stack">
          <Banner tone="warn">{keysTexts.once}</Banner>
          <pre class="snippet fill" tabIndex={0} aria-label={keysTexts.value}>{created.key}</pre>
          <CopyButton text={() => created.key}>{keysTexts.copy}</CopyButton>
          {kind !== 'sync' && <Snippets apiKey={created.key} flagKey="new-checkout" type="boolean" first={kind === 'client' ? 'browser' : 'node'} />}
        </div>
      </SidePanel>
    );
  }
  return (
    <SidePanel title={keysTexts.createTitle(env)} onClose={onClose}>
      <ActionForm
        action={action} submit={create} label={keysTexts.create} why={whyNotAdmin()} curl={creating.curl}
        more={<Button onClick={onClose}>{texts.cancel}</Button>}
      >
        <TextField class="fill" label={keysTexts.columns.name} hint={keysTexts.nameHint} value={name} onInput={setName} errors={errorsShownAt(action.error, 'name')} />
        <SelectField
          label={keysTexts.columns.kind} value={kind} onChange={setKind}
          options={[['server', keysTexts.kinds.server], ['client', keysTexts.kinds.client], ['sync', keysTexts.kinds.sync]]}
        />
      </ActionForm>
    </SidePanel>
  );
}
