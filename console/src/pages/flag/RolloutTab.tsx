// The share of users that get a simple flag, and which known users a change moves.
import { useEffect, useId, useState } from 'preact/hooks';
import { errorsShownAt } from '../../api/error.ts';
import { IDS } from '../../auth.ts';
import { bucketOf } from '../../bucketing.ts';
import { ActionForm } from '../../components/ActionForm.tsx';
import { Button, SelectField, TextField } from '../../components/controls.tsx';
import { Banner, Loaded } from '../../components/feedback.tsx';
import { confirmProduction } from '../../components/overlays.tsx';
import { VirtualTable } from '../../components/VirtualTable.tsx';
import { useResource } from '../../data.ts';
import { useDraft } from '../../drafts.ts';
import { numberOf } from '../../forms.ts';
import { parseIds } from '../../ids.ts';
import { flagPath } from '../../route.ts';
import { href, navigate } from '../../router.ts';
import { cohortSentence, rolloutSentence } from '../../sentences.ts';
import { flagTexts, rolloutTexts, rulesTexts } from '../../strings.ts';
import { useRampState, useEvaluations, useWhyNotEdit } from './facts.ts';
import { useOverrides } from './overrides.ts';
import { changeCurl, FlagConflict, useSaving, type Flag, type FlagChange } from './save.tsx';
import type { TabProps } from './tabs.tsx';

const fieldsOf = ({ rolloutPercentage, salt, bucketing }: Flag) => ({ percent: String(rolloutPercentage), salt: salt ?? '', bucketing: bucketing ?? '' });

/** The sentences compare the form with the stored flag. If the flag has changed since, the form shows both changes. */
export function RolloutTab({ env, flag, etag: latestEtag }: TabProps) {
  const { base, etag, draft, changed, stale, edit, discard } = useDraft(`rollout/${env} ${flag.key}`, flag, latestEtag, fieldsOf);
  const slider = useId();
  const ramping = useRampState(env, flag.key).running;
  const today = useEvaluations(env, flag.key).sentence;
  const from = flag.rolloutPercentage;
  const percent = numberOf(draft.percent) as number;
  // The API rejects every other value, which changes nothing.
  const to = Number.isInteger(percent) && percent >= 0 && percent <= 100 ? percent : from;
  const salt = draft.salt || null;
  const bucketing = (draft.bucketing || null) as typeof flag.bucketing;
  const saving = useSaving(env, discard);
  const reset = () => {
    discard();
    saving.clear();
  };
  const change: FlagChange = {
    ...(draft.percent !== String(from) && { rolloutPercentage: percent }),
    ...(salt !== flag.salt && { salt }),
    ...(bucketing !== flag.bucketing && { bucketing }),
  };
  const sentence = rolloutSentence(flag.key, from, to, env);
  const effect = cohortSentence(from, to, 'salt' in change || 'bucketing' in change);
  const curl = (ifMatch: string) => () => changeCurl(env, flag.key, changed ? change : { rolloutPercentage: from }, ifMatch);
  const ask = (ifMatch: string) => confirmProduction({
    env,
    title: sentence,
    body: (
      <>
        <p>{flag.enabled ? effect : rolloutTexts.off}</p>
        <p>{today}</p>
        {ramping && <p>{rolloutTexts.supersedes}</p>}
      </>
    ),
    action: rolloutTexts.save,
    curl: curl(ifMatch),
    run: () => saving.save(flag, change, ifMatch, rolloutTexts.done(flag.key, to, env)),
  });
  const why = useWhyNotEdit(env, flag.key);
  return (
    <div class="stack">
      {ramping && <Banner tone="warn">{rolloutTexts.supersedes} <a href={href(flagPath(env, flag.key, { tab: 'ramp' }))}>{flagTexts.toRamp}</a></Banner>}
      {!flag.enabled && <Banner>{rolloutTexts.off}</Banner>}
      <ActionForm
        class="card fill" action={saving} submit={() => ask(etag)} label={rolloutTexts.save} curl={curl(etag)}
        conflict={stale && <FlagConflict base={base} flag={flag} change={change} apply={() => ask(latestEtag)} discard={reset} />}
        why={why ?? (changed ? undefined : rulesTexts.unchanged)}
        more={
          <>
            <Button onClick={() => navigate(flagPath(env, flag.key, { tab: 'ramp' }))}>{rolloutTexts.ramp}</Button>
            {changed && <Button tone="quiet" onClick={reset}>{rulesTexts.reset}</Button>}
          </>
        }
      >
        <label for={slider}><strong>{rolloutTexts.legend}</strong></label>
        <input
          id={slider} type="range" min={0} max={100} value={to} disabled={why !== undefined} aria-valuetext={`${to} %`}
          onInput={(event) => edit({ percent: event.currentTarget.value })}
        />
        <TextField type="number" label={rolloutTexts.percent} value={draft.percent} onInput={(text) => edit({ percent: text })} errors={errorsShownAt(saving.error, 'rolloutPercentage')} />
        <p role="status">{sentence} {effect}</p>
        <TextField
          label={rolloutTexts.salt} value={draft.salt} onInput={(next) => edit({ salt: next })} errors={errorsShownAt(saving.error, 'salt')}
          hint={rolloutTexts.saltHint}
        />
        <SelectField
          label={rolloutTexts.bucketing} value={draft.bucketing} onChange={(next) => edit({ bucketing: next })}
          options={[['', rolloutTexts.inherit] as const, 'sha256', 'fractional']}
        />
      </ActionForm>
      <KnownUsers env={env} flag={flag} to={to} salt={salt} bucketing={bucketing} />
    </div>
  );
}

interface Known {
  user: string;
  /** The value that an override gives the user, in any bucket. */
  forced: boolean | undefined;
  oldBucket: number;
  bucket: number;
}

/** The buckets are computed here, with the server's hashes, so that pasted ids never leave the browser. */
function KnownUsers({ env, flag, to, salt, bucketing }: { env: string; to: number } & Pick<TabProps, 'flag'> & Pick<TabProps['flag'], 'salt' | 'bucketing'>) {
  const [text, setText] = useState(localStorage.getItem(IDS) ?? '');
  // Null if the browser has no SHA-256, because the page is not on HTTPS or localhost.
  const [known, setKnown] = useState<Known[] | null>([]);
  const settingsFrom = useResource('/api/admin/environments/{environment}/settings', { environment: env });
  const overridesFrom = useOverrides(env, flag.key);
  const settings = settingsFrom.data.value;
  const overrides = overridesFrom.data.value;
  useEffect(() => {
    if (!settings?.bucketing || !overrides) return;
    const types = new Map(overrides.map((override) => [override.userId, override.overrideType]));
    const inherited = settings.bucketing;
    const common = { fractional: settings.fractional, flagKey: flag.key };
    let current = true;
    // The evaluation for a user with an unreadable override fails.
    const users = [...new Set([...parseIds(text), ...types.keys()])].filter((user) => types.get(user) !== 'unreadable');
    void Promise.all(users.map(async (user): Promise<Known> => {
      const type = types.get(user);
      const [oldBucket, bucket] = await Promise.all([
        bucketOf(user, { ...common, salt: flag.salt, bucketing: flag.bucketing ?? inherited }),
        bucketOf(user, { ...common, salt, bucketing: bucketing ?? inherited }),
      ]);
      return { user, forced: type && type === 'include', oldBucket, bucket };
    })).catch(() => null).then((all) => {
      if (current) setKnown(all);
    });
    return () => {
      current = false;
    };
  }, [settings, overrides, text, salt, bucketing, flag]);
  const moves = (known ?? []).map(({ user, forced, oldBucket, bucket }) => ({
    user,
    bucket: forced === undefined ? bucket : null,
    before: flag.enabled && (forced ?? oldBucket < flag.rolloutPercentage),
    after: flag.enabled && (forced ?? bucket < to),
  }));
  // Those that move come first.
  moves.sort((a, b) => Number(a.before === a.after) - Number(b.before === b.after));
  const gain = moves.filter((move) => move.after && !move.before).length;
  const lose = moves.filter((move) => move.before && !move.after).length;
  const preview = !known || !settings?.bucketing ? <Banner tone="warn">{rolloutTexts.unknownBuckets}</Banner> : moves.length === 0 ? <p class="muted">{rolloutTexts.noIds}</p> : (
    <>
      <p role="status">{rolloutTexts.moves(gain, lose, moves.length - gain - lose)}</p>
      <VirtualTable
        label={rolloutTexts.preview} rows={moves} keyOf={({ user }) => user}
        columns={[
          { title: rolloutTexts.columns.user, cell: ({ user }) => <span title={user}>{user}</span> },
          { title: rolloutTexts.columns.bucket, class: 'number', cell: ({ bucket }) => bucket ?? rolloutTexts.overridden },
          { title: rolloutTexts.columns.before, cell: ({ before }) => String(before) },
          { title: rolloutTexts.columns.after, cell: ({ before, after }) => (before === after ? String(after) : <strong>{String(after)}</strong>) },
        ]}
      />
    </>
  );
  return (
    <section class="card">
      <h2>{rolloutTexts.known}</h2>
      <TextField
        label={rolloutTexts.ids} hint={rolloutTexts.knownHint} rows={3} value={text} spellcheck={false}
        onInput={(ids) => {
          setText(ids);
          localStorage.setItem(IDS, ids);
        }}
      />
      <h3>{rolloutTexts.preview}</h3>
      <Loaded from={settingsFrom}>{() => <Loaded from={overridesFrom}>{() => preview}</Loaded>}</Loaded>
    </section>
  );
}
