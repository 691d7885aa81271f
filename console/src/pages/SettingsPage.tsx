// An environment as a whole: settings, file, cache; and creating another one.
import { useState } from 'preact/hooks';
import { asApiError, curlOf, send, type Schemas } from '../api/client.ts';
import { errorsAt, type ApiError } from '../api/error.ts';
import { parseJson } from '../api/json.ts';
import { Button, CurlButton, SelectField, TextField } from '../components/controls.tsx';
import { Diff } from '../components/Diff.tsx';
import { DifferenceView } from '../components/DifferenceView.tsx';
import { Banner, ConflictView, ErrorText, Loaded } from '../components/feedback.tsx';
import { confirmThen, toast } from '../components/overlays.tsx';
import { Page } from '../components/Page.tsx';
import { isProduction } from '../config.ts';
import { reloadAll, useResource, type Resource } from '../data.ts';
import { navigate } from '../router.ts';
import { reloadEnvironments, whyNotAdmin } from '../session.ts';
import { environmentTexts as t, texts } from '../strings.ts';
import { attempt, savedText } from './flag/save.tsx';

const SETTINGS = '/api/admin/environments/{environment}/settings';
const IMPORT = '/api/admin/environments/{environment}/import';
const EXPORT = '/api/admin/environments/{environment}/export';
const PURGE = '/api/admin/environments/{environment}/purge';
type Settings = Schemas['Settings'];

export function SettingsPage({ env }: { env: string }) {
  const from = useResource(SETTINGS, { path: { environment: env } });
  return (
    <Page title={t.settings(env)}>
      <Loaded from={from}>{(settings) => <Form key={env} env={env} settings={settings} resource={from} />}</Loaded>
      <FileSection key={`file ${env}`} env={env} />
      <Purge env={env} />
      <Create />
    </Page>
  );
}

const production = (env: string) => isProduction(env) && <p>{texts.confirmProduction}</p>;
const pretty = (value: unknown) => JSON.stringify(value, null, 2);

function read(text: string): unknown {
  try {
    return parseJson(text);
  } catch {
    return undefined;
  }
}

interface Draft { fractional: 'v2' | 'v3'; bucketing: string; anonymousRollout: string; evaluators: string; metadata: string }

const draftOf = (settings: Settings): Draft => ({
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
  evaluators: read(draft.evaluators),
  metadata: read(draft.metadata),
});

function Form({ env, settings, resource }: { env: string; settings: Settings; resource: Resource<Settings> }) {
  const [edited, setEdited] = useState<{ draft: Draft; base: Settings; etag: string } | null>(null);
  const [error, setError] = useState<ApiError | null>(null);
  const [theirs, setTheirs] = useState<{ data: Settings; etag: string } | null>(null);
  const base = edited?.base ?? settings;
  const draft = edited?.draft ?? draftOf(settings);
  const etag = edited?.etag ?? resource.etag.value ?? '*';
  const set = (change: Partial<Draft>) => setEdited({ draft: { ...draft, ...change }, base, etag });
  const options = (ifMatch: string, wanted = draft) => ({ path: { environment: env }, body: bodyOf(wanted), ifMatch });
  const save = async (ifMatch: string, wanted = draft) => {
    setError(null);
    setTheirs(null);
    try {
      const reply = await send('put', SETTINGS, options(ifMatch, wanted));
      setEdited(null);
      toast(savedText(t.saved, reply.invalidated));
      reloadAll();
      await reloadEnvironments();
    } catch (cause) {
      const failure = asApiError(cause);
      if (!failure.conflict) setError(failure);
      else {
        const now = await attempt(() => send('get', SETTINGS, { path: { environment: env } }));
        if (now) setTheirs({ data: now.data, etag: now.etag ?? '*' });
      }
    }
  };
  const body = bodyOf(draft);
  const bad = (value: unknown) => (value === undefined ? [t.badJson] : []);
  const inherit = (value: unknown) => ['', t.inherit(String(value))] as const;
  const why = whyNotAdmin() ?? (body.evaluators === undefined || body.metadata === undefined ? t.badJson : edited ? undefined : texts.conflict.none);
  const mine = <Diff before={bodyOf(draftOf(base))} after={body} label={texts.conflict.mine} />;
  return (
    <form
      class="card"
      onSubmit={(event) => {
        event.preventDefault();
        if (why) return;
        confirmThen({ title: t.saveTitle(env), body: <>{production(env)}{mine}</>, action: texts.save, curl: () => curlOf('put', SETTINGS, options(etag)), run: () => save(etag) });
      }}
    >
      {settings.broken && <Banner tone="bad">{settings.broken.reason}</Banner>}
      <div class="form-row">
        <SelectField label={t.fractional} value={draft.fractional} options={[['v3', 'v3'], ['v2', 'v2']]} onChange={(fractional) => set({ fractional })} />
        <SelectField label={t.bucketing} value={draft.bucketing} options={[inherit(settings.bucketing), ['sha256', 'sha256'], ['fractional', 'fractional']]} onChange={(bucketing) => set({ bucketing })} />
        <SelectField label={t.anonymous} value={draft.anonymousRollout} options={[inherit(settings.anonymousRollout), ['true', 'true'], ['false', 'false']]} onChange={(anonymousRollout) => set({ anonymousRollout })} />
      </div>
      <p class="hint">{t.rebuckets}</p>
      <TextField class="fill" label={t.evaluators} rows={8} spellcheck={false} value={draft.evaluators} onInput={(evaluators) => set({ evaluators })} errors={[...bad(body.evaluators), ...errorsAt(error, 'evaluators')]} />
      <TextField class="fill" label={t.metadata} rows={3} spellcheck={false} value={draft.metadata} onInput={(metadata) => set({ metadata })} errors={[...bad(body.metadata), ...errorsAt(error, 'metadata')]} />
      {error && <Banner tone="bad"><ErrorText error={error} /></Banner>}
      {theirs && (
        <ConflictView
          theirs={[<Diff before={bodyOf(draftOf(base))} after={bodyOf(draftOf(theirs.data))} label={texts.conflict.theirs} />]}
          mine={[mine]}
          apply={() => {
            const [was, now] = [draftOf(base), draftOf(theirs.data)];
            const fields = Object.keys(was) as (keyof Draft)[];
            // Fields that only the other person changed keep their change.
            const merged = { ...now, ...Object.fromEntries(fields.filter((name) => draft[name] !== was[name]).map((name) => [name, draft[name]])) };
            setEdited({ draft: merged, base: theirs.data, etag: theirs.etag });
            void save(theirs.etag, merged);
          }}
          discard={() => { resource.set(theirs.data, theirs.etag); setEdited(null); setTheirs(null); }}
        />
      )}
      <div class="row">
        <Button tone="primary" type="submit" disabledBecause={why}>{texts.save}</Button>
        <CurlButton command={() => curlOf('put', SETTINGS, options(etag))} />
      </div>
    </form>
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
  const [error, setError] = useState<ApiError | null>(null);
  const path = { environment: env };
  const file = read(text);
  const why = whyNotAdmin() ?? (file === undefined ? t.badJson : undefined);
  const run = async (ifMatch?: string) => {
    setError(null);
    try {
      return await send('post', IMPORT, { path, query: { mode, dryRun: ifMatch === undefined ? 'true' : undefined }, body: file, ifMatch });
    } catch (cause) {
      setError(asApiError(cause));
      return null;
    }
  };
  const review = async () => {
    const dry = await run();
    if (!dry) return;
    const ifMatch = dry.etag ?? '*';
    confirmThen({
      title: t.importTitle(env),
      body: <>{production(env)}<DifferenceView difference={dry.data} /></>,
      action: t.doImport,
      danger: dry.data.archived.length > 0,
      curl: () => curlOf('post', IMPORT, { path, query: { mode }, body: file, ifMatch }),
      run: async () => {
        const reply = await run(ifMatch);
        if (!reply) return;
        setText('');
        reloadAll();
        toast(savedText(t.imported(env), reply.invalidated));
      },
    });
  };
  return (
    <section class="card">
      <h2>{t.file}</h2>
      <div class="row">
        <Button onClick={() => void attempt(async () => download(`${env}.json`, pretty((await send('get', EXPORT, { path })).data)))}>{t.export}</Button>
        <CurlButton command={() => curlOf('get', EXPORT, { path })} />
      </div>
      <label>{t.import} <input type="file" accept=".json" onChange={(event) => void event.currentTarget.files?.[0]?.text().then(setText)} /></label>
      <TextField label={t.paste} rows={6} spellcheck={false} value={text} onInput={setText} />
      <SelectField label={t.mode} value={mode} options={Object.entries(t.modes) as ['merge' | 'replace', string][]} onChange={setMode} />
      {error && <Banner tone="bad">{error.conflict && <strong>{texts.conflict.title} </strong>}<ErrorText error={error} /></Banner>}
      <div class="row">
        <Button disabledBecause={why} onClick={() => void review()}>{t.dryRun}</Button>
        <CurlButton command={() => curlOf('post', IMPORT, { path, query: { mode, dryRun: 'true' }, body: file })} />
      </div>
    </section>
  );
}

function Purge({ env }: { env: string }) {
  const options = { path: { environment: env } };
  const run = async () => {
    if (await attempt(() => send('post', PURGE, options))) toast(t.purged);
  };
  return (
    <section class="card">
      <p>{t.purgeText}</p>
      <div class="row">
        <Button disabledBecause={whyNotAdmin()} onClick={() => confirmThen({ title: `${t.purge}: ${env}?`, body: <>{production(env)}<p>{t.purgeText}</p></>, action: t.purge, curl: () => curlOf('post', PURGE, options), run })}>{t.purge}</Button>
        <CurlButton command={() => curlOf('post', PURGE, options)} />
      </div>
    </section>
  );
}

function Create() {
  const [name, setName] = useState('');
  const [error, setError] = useState<ApiError | null>(null);
  const options = { body: { environment: name } };
  const create = async () => {
    setError(null);
    try {
      await send('post', '/api/admin/environments', options);
      await reloadEnvironments();
      toast(t.created(name));
      navigate(`/${encodeURIComponent(name)}/flags`);
    } catch (cause) {
      setError(asApiError(cause));
    }
  };
  return (
    <form class="card" onSubmit={(event) => { event.preventDefault(); if (!whyNotAdmin()) void create(); }}>
      <h2>{t.create}</h2>
      <TextField label={t.name} value={name} onInput={setName} required errors={error ? [error.message] : []} />
      <div class="row">
        <Button type="submit" disabledBecause={whyNotAdmin()}>{t.create}</Button>
        <CurlButton command={() => curlOf('post', '/api/admin/environments', options)} />
      </div>
    </form>
  );
}
