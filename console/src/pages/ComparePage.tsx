// The flags of two environments side by side, and copying some of them.
import { useState } from 'preact/hooks';
import { asApiError, request, send, urlOf, type Schemas } from '../api/client.ts';
import type { ApiError } from '../api/error.ts';
import { sameJson } from '../api/json.ts';
import { Button, CurlButton, SelectField } from '../components/controls.tsx';
import { Diff } from '../components/Diff.tsx';
import { DifferenceView } from '../components/DifferenceView.tsx';
import { Banner, ConflictView, Empty, Loaded } from '../components/feedback.tsx';
import { confirmThen, SidePanel } from '../components/overlays.tsx';
import { Page } from '../components/Page.tsx';
import { useSelection } from '../components/selection.tsx';
import { VirtualTable } from '../components/VirtualTable.tsx';
import { isProduction } from '../config.ts';
import { reloadAll, useLoader, type Resource } from '../data.ts';
import { flagPath, pagePath } from '../route.ts';
import { href, queryValue, setQuery } from '../router.ts';
import { fieldsOf, stateSentence } from '../sentences.ts';
import { environment, environments, whyNotEdit } from '../session.ts';
import { environmentTexts as t, paletteTexts } from '../strings.ts';
import { flagSummary } from './flag/FlagPage.tsx';
import { FLAG, flagParams, savedText, toastWithUndo, type Step } from './flag/save.tsx';

type Flag = Schemas['FlagDefinition'];
type Flags = Map<string, Flag>;
interface Row { key: string; from: Flag | undefined; to: Flag | undefined }

const LIST = '/api/admin/flags';
const COPY = '/api/admin/environments/{environment}/copy';

/** All flags of an environment with their definitions, archived ones too: a copy must not overwrite them unseen. */
function useFlags(env: string): Resource<Flags> {
  return useLoader<Flags>(urlOf(LIST, { environment: env, all: 1 }), async ({ signal }) => {
    const flags: Flags = new Map();
    for (const archived of ['false', 'true']) {
      for (let page = 1, pages = 1; page <= pages; page += 1) {
        const { data } = await send('get', LIST, { environment: env, archived, page, pageSize: 1_000 }, { signal });
        for (const flag of data.flags) {
          // The list omits large definitions if the page would be too large.
          flags.set(flag.key, flag.definition?.omittedBytes ? (await send('get', FLAG, flagParams(env, flag.key), { signal })).data : flag);
        }
        pages = Math.ceil(data.pagination.total / data.pagination.pageSize);
      }
    }
    return { status: 200, data: flags, etag: undefined };
  });
}

const etagOf = (flag: Flag) => `"${flag.revision}"`;
const shown = (flag: Flag | undefined) => flag && fieldsOf(flag);
const same = (a: Flag | undefined, b: Flag | undefined) => sameJson(shown(a), shown(b));

function rowsOf(from: Flags, to: Flags): Row[] {
  return [...new Set([...from.keys(), ...to.keys()])].sort()
    .map((key) => ({ key, from: from.get(key), to: to.get(key) }))
    .filter((row) => !same(row.from, row.to));
}

export function ComparePage() {
  const names = environments.value;
  // Flags are tried elsewhere first, and then copied to production.
  const to = queryValue('to') || (names.find((name) => isProduction(name)) ?? environment.value);
  const from = queryValue('from') || (environment.value !== to ? environment.value : names.find((name) => name !== to) ?? to);
  const only = queryValue('flag');
  return (
    <Page title={t.compare}>
      <div class="form-row">
        <SelectField label={t.from} value={from} options={names} onChange={(name) => setQuery({ from: name, to })} />
        <SelectField label={t.to} value={to} options={names} onChange={(name) => setQuery({ from, to: name })} />
        <Button tone="quiet" onClick={() => setQuery({ from: to, to: from })}>{t.swap}</Button>
        {only && <Button tone="quiet" onClick={() => setQuery({ flag: null })}>{t.allFlags}</Button>}
      </div>
      {from === to
        ? names.length > 1
          ? <Empty title={t.sameName} />
          : <Empty title={t.oneOnly}><a href={href(pagePath(from, 'settings'))}>{t.create}</a></Empty>
        : <Comparison key={`${from} ${to} ${only}`} from={from} to={to} only={only} />}
    </Page>
  );
}

/** `only` is the key of the flag that is compared, or empty. */
function Comparison({ from, to, only }: { from: string; to: string; only: string }) {
  const [left, right] = [useFlags(from), useFlags(to)];
  const { keys: selected, select, box } = useSelection(only === '' ? [] : [only]);
  const [open, setOpen] = useState<Row | null>(null);
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<ApiError | null>(null);
  /** The rows as they were when a copy was rejected because of changes. */
  const [clash, setClash] = useState<Row[] | null>(null);
  const copying = (rows: Row[], dryRun?: 'true') => request('post', COPY, { environment: to, dryRun }, {
    body: { from, flags: rows.map((row) => ({ flagKey: row.key, ifMatch: row.to ? etagOf(row.to) : null })) },
  });
  const attempt = async (rows: Row[], dryRun?: 'true') => {
    setBusy(true);
    setError(null);
    setClash(null);
    try {
      return await copying(rows, dryRun).send();
    } catch (cause) {
      const failure = asApiError(cause);
      await reloadAll();
      // Without a change that this page can show, the message of the API has to explain it.
      if (failure.conflict && rows.some((row) => targetChanged(row))) setClash(rows);
      else setError(failure);
      return null;
    } finally {
      setBusy(false);
    }
  };
  const targetChanged = (row: Row) => right.data.peek()?.get(row.key)?.revision !== row.to?.revision;
  const copy = async (rows: Row[]) => {
    const reply = await attempt(rows);
    if (!reply) return;
    select([]);
    await reloadAll();
    toastWithUndo(savedText(t.copied(rows.length, to), reply), rows.flatMap((row) => undoOf(row, to, right.data.peek())));
  };
  const review = async (rows: Row[]) => {
    const dry = await attempt(rows, 'true');
    if (!dry) return;
    confirmThen({
      env: to,
      title: t.copyTitle(rows.length, from, to),
      body: <><p>{t.copyText}</p><DifferenceView difference={dry.data} /></>,
      action: t.copy,
      curl: copying(rows).curl,
      run: () => copy(rows),
    });
  };
  return (
    <Loaded from={left}>
      {(a) => (
        <Loaded from={right}>
          {(b) => {
            const rows = rowsOf(a, b).filter((row) => only === '' || row.key === only);
            if (rows.length === 0) return <Empty title={only ? t.sameFlag(only) : t.same}>{b.has(only) && <a href={href(flagPath(to, only))}>{paletteTexts.flag(only, to)}</a>}</Empty>;
            const copyable = rows.filter((row) => row.from?.archivedAt === null);
            const chosen = copyable.filter((row) => selected.has(row.key));
            const state = (flag: Flag | undefined) => (flag ? stateSentence(flagSummary(flag)) : t.missing);
            const why = whyNotEdit(to);
            const changed = clash?.filter(targetChanged) ?? [];
            const difference = (row: Row, before: Flag | undefined, after: Flag | undefined) => (
              <><code>{row.key}</code><Diff before={shown(before)} after={shown(after)} label={`${t.columns.diff}: ${row.key}`} /></>
            );
            return (
              <>
                <div class="row">
                  <span>{t.differ(rows.length)}</span>
                  <Button disabledBecause={why} onClick={() => select(chosen.length > 0 ? [] : copyable.map((row) => row.key))}>
                    {chosen.length > 0 ? t.selectNone : t.selectAll}
                  </Button>
                  <Button tone="primary" busy={busy} disabledBecause={why ?? (chosen.length === 0 ? t.nothing : undefined)} onClick={() => void review(chosen)}>
                    {t.review(chosen.length)}
                  </Button>
                  {chosen.length > 0 && <CurlButton command={copying(chosen, 'true').curl} />}
                </div>
                {error && <Banner tone="bad">{error.message}</Banner>}
                {clash && (
                  <ConflictView
                    theirs={changed.map((row) => difference(row, row.to, b.get(row.key)))}
                    mine={changed.map((row) => difference(row, b.get(row.key), row.from))}
                    apply={() => {
                      // Flags that both sides have changed in the same way no longer differ.
                      const left = copyable.filter((row) => clash.some(({ key }) => key === row.key));
                      return left.length > 0 ? void review(left) : setClash(null);
                    }}
                    discard={() => { setClash(null); select([]); }}
                  />
                )}
                <VirtualTable
                  label={t.compare}
                  rows={rows}
                  keyOf={(row) => row.key}
                  columns={[
                    {
                      title: t.columns.flag,
                      class: 'flag-column',
                      cell: (row) => (
                        <>
                          {box(row.key, t.select(row.key), why ?? (copyable.includes(row) ? undefined : t.notIn(from)))}{' '}
                          <a href={href(flagPath(row.from ? from : to, row.key))}>{row.key}</a>
                        </>
                      ),
                    },
                    { title: from, cell: (row) => state(row.from) },
                    { title: to, cell: (row) => state(row.to) },
                    { title: t.columns.diff, class: 'diff-column', cell: (row) => <Button tone="quiet" label={`${t.columns.diff}: ${row.key}`} onClick={() => setOpen(row)}>{t.columns.diff}</Button> },
                  ]}
                />
                {open && <SidePanel title={open.key} onClose={() => setOpen(null)}><p>{to} → {from}</p><Diff before={shown(open.to)} after={shown(open.from)} label={t.columns.diff} /></SidePanel>}
              </>
            );
          }}
        </Loaded>
      )}
    </Loaded>
  );
}

/**
 * The step that returns a copied flag to its previous state. None if that state was unreadable, or someone has changed
 * the flag since. A flag that was new is archived.
 */
function undoOf({ key, from, to: before }: Row, env: string, now: Flags | undefined): Step[] {
  const flag = now?.get(key);
  if (!flag || before?.broken || !same(flag, from)) return [];
  const target = flagParams(env, key);
  return [[key, async () => {
    const ifMatch = etagOf(flag);
    if (!before) return send('delete', FLAG, target, { ifMatch });
    // A revert also restores fields without an effect, such as the rollout of a flag with a definition.
    const { data } = await send('get', `${FLAG}/audit`, { ...target, pageSize: 1_000 });
    const auditId = data.entries.find(({ action }) => action === 'flag.copy')!.id;
    return send('post', `${FLAG}/revert`, target, { ifMatch, body: { auditId, state: 'before' } });
  }]];
}
