// Audit entries, newest first: what changed, in sentences and as a difference, and how to revert it.
import { useEffect, useRef } from 'preact/hooks';
import { asApiError, send, type ResponseBody } from '../api/client.ts';
import { canRevert, actionText, details, withoutOmitted, type AuditEntry } from '../audit.ts';
import { Button } from '../components/controls.tsx';
import { Diff, DiffDetails } from '../components/Diff.tsx';
import { Banner, Empty, Loaded } from '../components/feedback.tsx';
import { confirmThen } from '../components/overlays.tsx';
import { Time } from '../components/Time.tsx';
import { prepareChange, type Resource } from '../data.ts';
import { flagPath } from '../route.ts';
import { address, href, queryValue } from '../router.ts';
import { fieldsOf } from '../sentences.ts';
import { whyNotEdit } from '../session.ts';
import { historyTexts } from '../strings.ts';
import { attempt, FLAG, flagParams, withReport } from './flag/save.tsx';

type Page = ResponseBody<'/api/admin/environments/{environment}/audit', 'get'>;

export const pageOptions = () => ({ page: queryValue('page') || undefined, pageSize: 50 });

/** A page of entries; `matches` selects the ones that are shown. */
export function AuditList({ from, env, matches = () => true }: { from: Resource<Page>; env: string; matches?: (entry: AuditEntry) => boolean }) {
  return (
    <Loaded from={from}>
      {({ entries, pagination }) => {
        const shown = entries.filter(matches);
        return (
          <>
            {shown.length === 0 && <Empty title={entries.length === 0 ? historyTexts.none : historyTexts.noMatch} />}
            <ol class="audit">{shown.map((entry) => <Entry key={entry.id} env={env} entry={withoutOmitted(entry)} />)}</ol>
            <Pages {...pagination} />
          </>
        );
      }}
    </Loaded>
  );
}

function Entry({ env, entry }: { env: string; entry: AuditEntry }) {
  const item = useRef<HTMLLIElement>(null);
  const linked = queryValue('entry') === String(entry.id);
  useEffect(() => {
    if (linked) item.current?.scrollIntoView({ block: 'center' });
  }, [linked]);
  const lines = details(entry);
  const { flagKey } = entry;
  return (
    <li ref={item} class={linked ? 'linked' : undefined}>
      <div class="row">
        <span><strong>{entry.actor}</strong> {actionText(entry)}{lines.length > 0 && <span class="muted">: {lines.join(' · ')}</span>}</span>
        <Time at={entry.at} />
        {flagKey !== null && <a href={href(flagPath(env, flagKey, { tab: 'history', entry: entry.id }))} aria-label={`${historyTexts.link}: ${entry.id}`}>{historyTexts.link}</a>}
      </div>
      {entry.broken && <Banner tone="warn">{entry.broken.reason}</Banner>}
      {(entry.before !== null || entry.after !== null) && (
        <DiffDetails before={entry.before} after={entry.after} label={historyTexts.diff}>
          <div class="row">
            {(['before', 'after'] as const).map((side) => canRevert(entry, side) && (
              <Button key={side} disabledBecause={whyNotEdit(env)} onClick={() => void revert(env, entry, side)}>
                {side === 'before' ? historyTexts.undo : historyTexts.restore}
              </Button>
            ))}
          </div>
        </DiffDetails>
      )}
    </li>
  );
}

/**
 * Asks before a revert, and shows a difference: for a flag, from its current state; for overrides, that of the entry.
 * Sends the ETag of the current state, so that no later change is overwritten.
 */
async function revert(env: string, entry: AuditEntry, side: 'before' | 'after'): Promise<void> {
  const key = entry.flagKey ?? '';
  const target = flagParams(env, key);
  const current = await attempt(async () => {
    try {
      return await send('get', FLAG, target);
    } catch (error) {
      if (asApiError(error).status === 404) return { data: null, etag: '*' };
      throw error;
    }
  });
  if (!current) return;
  const reverting = prepareChange('post', `${FLAG}/revert`, target, { body: { auditId: entry.id, state: side }, ifMatch: current.etag });
  const flag = entry.action.startsWith('flag.');
  const [now, then] = flag
    ? [entry[side] && current.data, entry[side]].map((state) => state && fieldsOf(state))
    : side === 'before' ? [entry.after, entry.before] : [entry.before, entry.after];
  confirmThen({
    env,
    title: historyTexts.question(key, env),
    body: (
      <>
        <p>{flag ? historyTexts.becomes : entry.action.startsWith('override.') ? historyTexts.override : historyTexts.overrides(side)}</p>
        <Diff before={now} after={then} label={historyTexts.diff} />
      </>
    ),
    action: historyTexts.action,
    ...withReport(reverting, historyTexts.done(key)),
  });
}

function Pages({ page, pageSize, total }: Page['pagination']) {
  const pages = Math.max(1, Math.ceil(total / pageSize));
  const to = (number: number) => href(address.value.path, { ...Object.fromEntries(address.value.query), page: number });
  if (pages === 1) return null;
  return (
    <nav class="row" aria-label={historyTexts.page(page, pages)}>
      {page > 1 && <a href={to(page - 1)}>{historyTexts.newer}</a>}
      <span>{historyTexts.page(page, pages)}</span>
      {page < pages && <a href={to(page + 1)}>{historyTexts.older}</a>}
    </nav>
  );
}
