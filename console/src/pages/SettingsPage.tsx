// An environment as a whole: settings, file, cache; and creating another one.
import { useState } from 'preact/hooks';
import { request, type Schemas } from '../api/client.ts';
import { errorsShownAt } from '../api/error.ts';
import { pretty, tryJson } from '../api/json.ts';
import { ActionForm, useAction } from '../components/ActionForm.tsx';
import { Button, CurlButton, SelectField, TextField } from '../components/controls.tsx';
import { Diff } from '../components/Diff.tsx';
import { DifferenceView } from '../components/DifferenceView.tsx';
import { Banner, ConflictView, Loaded } from '../components/feedback.tsx';
import { confirmThen, toast } from '../components/overlays.tsx';
import { Page } from '../components/Page.tsx';
import { prepareChange, reloadAll, useResource, type Resource } from '../data.ts';
import { useDraft } from '../drafts.ts';
import { pagePath } from '../route.ts';
import { navigate } from '../router.ts';
import { reloadEnvironments, whyNotAdmin } from '../session.ts';
import { environmentTexts as t, importModes, rulesTexts, texts } from '../strings.ts';
import { attempt, saved, withReport } from './flag/save.tsx';

const SETTINGS = '/api/admin/environments/{environment}/settings';
const IMPORT = '/api/admin/environments/{environment}/import';
const EXPORT = '/api/admin/environments/{environment}/export';
const PURGE = '/api/admin/environments/{environment}/purge';
type Settings = Schemas['Settings'];

export function SettingsPage({ env }: { env: string }) {
  const from = useResource(SETTINGS, { environment: env });
  return (
    <Page title={t.settings(env)}>
      <Loaded from={from}>{(settings) => <Form key={env} env={env} settings={settings} resource={from} />}</Loaded>
      <FileSection key={`file ${env}`} env={env} />
      <Purge env={env} />
      <Create />
    </Page>
  );
}

interface Draft { fractional: 'v2' | 'v3'; bucketing: string; anonymousRollout: string; evaluators: string; metadata: string }

const fieldsOf = (settings: Settings): Draft => ({
  fractional: settings.fractional,
  bucketing: settings.inherited.includes('bucketing') ? '' : String(settings.bucketing),
  anonymousRollout: settings.inherited.includes('anonymousRollout') ? '' : String(settings.anonymousRollout),
  evaluators: pretty(settings.evaluators),
  metadata: pretty(settings.metadata),
});
const bodyOf = (draft: Draft) => ({
  fractional: draft.fractional,
  bucketing: draft.bucketing || null,
  anonymousRollout: draft.anonymousRollout === '' ? null : draft.anonymousRollout === 'true',
  evaluators: tryJson(draft.evaluators),
  metadata: tryJson(draft.metadata),
});

function Form({ env, settings, resource }: { env: string; settings: Settings; resource: Resource<Settings> }) {
  const latestEtag = resource.etag.value ?? '*';
  const { base, etag, draft, changed, stale, edit: set, discard: end } = useDraft(`settings/${env}`, settings, latestEtag, fieldsOf);
  const action = useAction();
  const { error } = action;
  const discard = () => {
    end();
    action.clear();
  };
  const body = bodyOf(draft);
  const saving = (ifMatch: string) => prepareChange('put', SETTINGS, { environment: env }, { body, ifMatch });
  const bad = (value: unknown) => (value === undefined ? [t.badJson] : []);
  /** The option for the installation's default. It lacks the value if the environment has its own: the API returns only one. */
  const inherit = (field: 'bucketing' | 'anonymousRollout') =>
    ['', settings.inherited.includes(field) ? `${t.inherit} (${settings[field]})` : t.inherit] as const;
  const why = whyNotAdmin() ?? (body.evaluators === undefined || body.metadata === undefined ? t.badJson : changed ? undefined : rulesTexts.unchanged);
  const now = bodyOf(fieldsOf(settings));
  const mine = <Diff before={now} after={body} label={texts.conflict.mine} />;
  const ask = (ifMatch: string) => confirmThen({
    env,
    title: t.saveTitle(env),
    body: mine,
    action: texts.save,
    curl: saving(ifMatch).curl,
    run: () => action.run(async () => {
      const reply = await saving(ifMatch).send();
      end();
      saved(t.saved, reply);
      await reloadEnvironments();
    }),
  });
  return (
    <ActionForm
      class="card" action={action} label={texts.save} why={why} curl={saving(etag).curl} submit={() => ask(etag)}
      conflict={stale && (
        <ConflictView
          theirs={[<Diff before={bodyOf(fieldsOf(base))} after={now} label={texts.conflict.theirs} />]} mine={[mine]}
          apply={() => ask(latestEtag)} discard={discard}
        />
      )}
      more={changed && <Button tone="quiet" onClick={discard}>{rulesTexts.reset}</Button>}
    >
      {settings.broken && <Banner tone="bad">{settings.broken.reason}</Banner>}
      <div class="form-row">
        <SelectField label={t.fractional} value={draft.fractional} options={['v3', 'v2']} onChange={(fractional) => set({ fractional })} />
        <SelectField label={t.bucketing} value={draft.bucketing} options={[inherit('bucketing'), 'sha256', 'fractional']} onChange={(bucketing) => set({ bucketing })} />
        <SelectField label={t.anonymous} value={draft.anonymousRollout} options={[inherit('anonymousRollout'), 'true', 'false']} onChange={(anonymousRollout) => set({ anonymousRollout })} />
      </div>
      <p class="hint">{t.rebuckets}</p>
      <TextField class="fill" label={t.evaluators} rows={8} spellcheck={false} value={draft.evaluators} onInput={(evaluators) => set({ evaluators })} errors={[...bad(body.evaluators), ...errorsShownAt(error, 'evaluators')]} />
      <TextField class="fill" label={t.metadata} rows={3} spellcheck={false} value={draft.metadata} onInput={(metadata) => set({ metadata })} errors={[...bad(body.metadata), ...errorsShownAt(error, 'metadata')]} />
    </ActionForm>
  );
}

function download(name: string, content: string): void {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([content], { type: 'application/json' }));
  link.download = name;
  link.click();
  URL.revokeObjectURL(link.href);
}

function FileSection({ env }: { env: string }) {
  const [text, setText] = useState('');
  const [mode, setMode] = useState<'merge' | 'replace'>('merge');
  const action = useAction();
  const exporting = request('get', EXPORT, { environment: env });
  const file = tryJson(text);
  const importing = (ifMatch?: string) => request('post', IMPORT, { environment: env, mode, dryRun: ifMatch === undefined ? 'true' : undefined }, { body: file, ifMatch });
  const review = () => void action.run(async () => {
    const dry = await importing().send();
    const real = importing(dry.etag ?? '*');
    confirmThen({
      env,
      title: t.importTitle(env),
      body: <DifferenceView difference={dry.data} />,
      action: t.doImport,
      danger: dry.data.archived.length > 0,
      curl: real.curl,
      run: () => action.run(async () => {
        const reply = await real.send();
        setText('');
        await reloadAll();
        saved(t.imported(env), reply);
      }),
    });
  });
  return (
    <ActionForm
      class="card" action={action} submit={review} label={t.dryRun} curl={importing().curl}
      why={whyNotAdmin() ?? (file === undefined ? t.badJson : undefined)}
    >
      <h2>{t.file}</h2>
      <div class="row">
        <Button onClick={() => void attempt(async () => download(`${env}.json`, pretty((await exporting.send()).data)))}>{t.export}</Button>
        <CurlButton command={exporting.curl} />
      </div>
      <label>{t.import} <input type="file" accept=".json" onChange={(event) => void event.currentTarget.files?.[0]?.text().then(setText)} /></label>
      <TextField label={t.paste} rows={6} spellcheck={false} value={text} onInput={setText} />
      <SelectField label={t.mode} value={mode} options={Object.entries(importModes) as ['merge' | 'replace', string][]} onChange={setMode} />
    </ActionForm>
  );
}

function Purge({ env }: { env: string }) {
  const purging = request('post', PURGE, { environment: env });
  return (
    <section class="card">
      <h2>{t.purge}</h2>
      <p>{t.purgeText}</p>
      <div class="row">
        <Button disabledBecause={whyNotAdmin()} onClick={() => confirmThen({ env, title: `${t.purge}: ${env}?`, body: <p>{t.purgeText}</p>, action: t.purge, ...withReport(purging, t.purged) })}>{t.purge}</Button>
        <CurlButton command={purging.curl} />
      </div>
    </section>
  );
}

function Create() {
  const [name, setName] = useState('');
  const action = useAction();
  const creating = prepareChange('post', '/api/admin/environments', {}, { body: { environment: name } });
  const create = () => void action.run(async () => {
    await creating.send();
    await reloadEnvironments();
    toast(t.created(name));
    navigate(pagePath(name, 'flags'));
  });
  return (
    <ActionForm class="card" action={action} submit={create} label={t.create} why={whyNotAdmin()} curl={creating.curl}>
      <h2>{t.create}</h2>
      <TextField label={t.name} value={name} onInput={setName} errors={errorsShownAt(action.error, 'environment')} />
    </ActionForm>
  );
}
