// One flag: what it does now, and tabs for every change of it.
import type { ComponentChildren } from 'preact';
import { useState } from 'preact/hooks';
import { curlOf, request, type Schemas } from '../../api/client.ts';
import { ActionForm } from '../../components/ActionForm.tsx';
import { Button, CurlButton, Tag, TextField } from '../../components/controls.tsx';
import { Banner, Empty, Loaded } from '../../components/feedback.tsx';
import { confirmThen } from '../../components/overlays.tsx';
import { Page } from '../../components/Page.tsx';
import { Tabs } from '../../components/Tabs.tsx';
import { Time } from '../../components/Time.tsx';
import { isProduction } from '../../config.ts';
import { prepareChange, reloadAll, useResource } from '../../data.ts';
import { useDraft } from '../../drafts.ts';
import { flagPath, pagePath } from '../../route.ts';
import { href, navigate, queryValue } from '../../router.ts';
import { stateSentence, type FlagSummary } from '../../sentences.ts';
import { environments, whyNotEdit } from '../../session.ts';
import { useCommands } from '../../shortcuts.ts';
import { flagTexts, texts, toggleTexts } from '../../strings.ts';
import { errorsShownAt } from '../../api/error.ts';
import { ToggleButton, toggleFlag } from '../toggle.tsx';
import { useRampState, useEvaluations, useWhyNotEdit } from './facts.ts';
import { attempt, changeCurl, FLAG, flagParams, restoreFlag, saved, FlagConflict, withReport, useSaving, type Flag } from './save.tsx';
import { tabs } from './tabs.tsx';

export function definitionOf(flag: Flag): Schemas['Definition'] | null {
  return flag.definition as Schemas['Definition'] | null;
}

export function flagSummary(flag: Flag): FlagSummary {
  const definition = definitionOf(flag);
  return {
    enabled: flag.enabled,
    rolloutPercentage: flag.rolloutPercentage,
    variants: definition && Object.keys(definition.variants ?? {}).length,
    hasTargeting: Object.keys(definition?.targeting ?? {}).length > 0,
    defaultVariant: definition?.defaultVariant ?? null,
    archived: flag.archivedAt !== null,
  };
}

/** The time between two requests for the state of the flag, in milliseconds. */
const INTERVAL = 30_000;

export function FlagPage({ env, path }: { env: string; path: string }) {
  const key = queryValue('key') || path;
  const target = flagParams(env, key);
  const resource = useResource(FLAG, target, INTERVAL);
  const { sentence: today, lastEvaluatedAt } = useEvaluations(env, key);
  // Its tabs share this request, so they follow an alarm and an acknowledgement too.
  const { blocks } = useRampState(env, key, INTERVAL);
  const list = href(pagePath(env, 'flags'));
  if (resource.error.value?.status === 404) {
    return (
      <Page title={key}>
        <Empty title={flagTexts.notFound(key, env)}><a href={list}>{flagTexts.toList}</a></Empty>
      </Page>
    );
  }
  const flag = resource.data.value;
  const etag = resource.etag.value ?? '*';
  // An archived flag can only be restored, reverted and deleted. After a rollback, deleting needs an acknowledgement.
  const offered = flag && flag.archivedAt !== null ? tabs.filter(([tab]) => tab === 'history' || (blocks && tab === 'ramp')) : tabs;
  const id = queryValue('tab');
  const [current, , Tab] = offered.find(([tab]) => tab === id) ?? offered[0]!;
  return (
    <Page title={key} actions={flag && <Actions env={env} flag={flag} etag={etag} today={today} />}>
      <Loaded from={resource}>
        {(flag) => (
          <>
            <Summary key={`${env} ${key}`} env={env} flag={flag} etag={etag}>
              {flagTexts.evaluated} <Time at={lastEvaluatedAt} />. {today}
            </Summary>
            {flag.archivedAt !== null && <Banner tone="warn">{flagTexts.archived}</Banner>}
            {blocks && (
              <Banner tone="warn" actions={<a href={href(flagPath(env, key, { tab: 'ramp' }))}>{flagTexts.toRamp}</a>}>{flagTexts.rolledBack}.</Banner>
            )}
            {flag.broken?.reason && <Banner tone="bad">{flagTexts.broken(flag.broken.reason)}</Banner>}
            <Tabs label={flagTexts.tabs} tabs={offered.map(([tab, text]) => [tab, text] as const)} current={current} />
            <Tab key={`${env} ${key} ${current}`} env={env} flag={flag} etag={etag} />
          </>
        )}
      </Loaded>
    </Page>
  );
}

interface SummaryProps {
  env: string;
  flag: Flag;
  etag: string;
  children: ComponentChildren;
}

function Summary({ env, flag, etag: latestEtag, children }: SummaryProps) {
  const { base, etag, draft: { description }, changed, stale, edit, discard } =
    useDraft(`description/${env} ${flag.key}`, flag, latestEtag, ({ description }) => ({ description: description ?? '' }));
  const [open, setOpen] = useState(changed);
  const close = () => {
    discard();
    saving.clear();
    setOpen(false);
  };
  const saving = useSaving(env, close);
  const why = useWhyNotEdit(env, flag.key);
  const change = { description: description || null };
  const save = (ifMatch: string) => void saving.save(flag, change, ifMatch, flagTexts.described(flag.key));
  return (
    <div class="stack">
      {!open
        ? (
          <p class="row">
            <span class={flag.description === null ? 'muted' : ''}>{flag.description ?? flagTexts.noDescription}</span>
            {flag.archivedAt === null && (
              <Button tone="quiet" disabledBecause={why} onClick={() => setOpen(true)}>{flagTexts.edit}</Button>
            )}
          </p>
        )
        : (
          <ActionForm
            class="stack fill" action={saving} label={texts.save} why={undefined}
            submit={() => save(etag)}
            curl={() => changeCurl(env, flag.key, change, etag)} more={<Button onClick={close}>{texts.cancel}</Button>}
            conflict={stale && <FlagConflict base={base} flag={flag} change={change} apply={() => save(latestEtag)} discard={close} />}
          >
            <TextField class="fill" label={flagTexts.description} value={description} onInput={(description) => edit({ description })} errors={errorsShownAt(saving.error, 'description')} />
          </ActionForm>
        )}
      <p>
        <strong>{flagTexts.now(stateSentence(flagSummary(flag)), env)}</strong> {children}{' '}
        {definitionOf(flag)?.metadata?.serverOnly === true && <Tag>{flagTexts.serverOnly}</Tag>}
      </p>
    </div>
  );
}

function Actions({ env, flag, etag, today }: { env: string; flag: Flag; etag: string; today: string }) {
  const why = whyNotEdit(env);
  const { key } = flag;
  const target = flagParams(env, key);
  const archiving = prepareChange('delete', FLAG, target, { ifMatch: etag });
  const removing = request('delete', FLAG, { ...target, permanently: 'true' }, { ifMatch: etag });
  const blocked = useWhyNotEdit(env, key);
  const toggle = { env, flagKey: key, summary: flagSummary(flag), etag, use: today, why: flag.enabled ? why : blocked };
  useCommands(
    toggle.why === undefined && flag.archivedAt === null
      ? [{ id: 'toggle', title: `${flag.enabled ? toggleTexts.off : toggleTexts.on}: ${key}`, run: () => toggleFlag(toggle) }]
      : [],
    [flag, etag, toggle.why, today],
  );
  const restore = withReport(prepareChange('post', `${FLAG}/restore`, target, { ifMatch: etag }), flagTexts.restored(key));
  const remove = () => attempt(async () => {
    saved(flagTexts.removed(key), await removing.send());
    navigate(pagePath(env, 'flags'));
    await reloadAll();
  });
  const curl = <CurlButton command={() => curlOf('get', FLAG, target)} />;
  if (flag.archivedAt !== null) {
    return (
      <>
        {curl}
        <Button disabledBecause={why} onClick={() => void restore.run()}>{flagTexts.restore}</Button>
        <Button
          disabledBecause={why}
          onClick={() => confirmThen({
            env,
            title: flagTexts.removeTitle(key, env),
            body: <p>{flagTexts.removeText}</p>,
            action: flagTexts.remove,
            danger: true,
            curl: removing.curl,
            run: remove,
          })}
        >
          {flagTexts.remove}
        </Button>
      </>
    );
  }
  const others = environments.value.filter((name) => name !== env);
  const to = others.find(isProduction) ?? others[0];
  return (
    <>
      {curl}
      {to !== undefined && <Button onClick={() => navigate('/compare', { query: { from: env, to, flag: key } })}>{flagTexts.copyTo(to)}</Button>}
      <Button
        disabledBecause={why}
        onClick={() => confirmThen({
          env,
          title: flagTexts.archiveTitle(key, env),
          body: <><p>{flagTexts.archiveText}</p><p>{today}</p></>,
          action: flagTexts.archive,
          danger: true,
          ...withReport(archiving, flagTexts.archivedDone(key), (reply) => restoreFlag(env, flag, reply.etag).finally(reloadAll)),
        })}
      >
        {flagTexts.archive}
      </Button>
      <ToggleButton {...toggle} />
    </>
  );
}
