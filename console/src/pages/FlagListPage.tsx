// All flags of an environment. Search, filter and the form for a new flag are in the address.
import { useMemo } from 'preact/hooks';
import { curlOf } from '../api/client.ts';
import { Button, CurlButton, Tag } from '../components/controls.tsx';
import { Empty, EmptyList, Loaded } from '../components/feedback.tsx';
import { Page } from '../components/Page.tsx';
import { SearchTable } from '../components/SearchTable.tsx';
import { Time } from '../components/Time.tsx';
import type { Column } from '../components/VirtualTable.tsx';
import { flagPath } from '../route.ts';
import { href, queryValue, setQuery } from '../router.ts';
import { stateSentence } from '../sentences.ts';
import { whyNotEdit } from '../session.ts';
import { useCommands } from '../shortcuts.ts';
import { count, flagFilters, flagTexts, listTexts, rampStates, staleReasons } from '../strings.ts';
import { CreateFlag } from './CreateFlag.tsx';
import { isTyped, summaryOf, useFlagRows, type FlagRow } from './flagRows.ts';
import { ToggleButton } from './toggle.tsx';

type Filter = keyof typeof flagFilters;
const FILTERS = Object.keys(flagFilters) as Filter[];

/** Archived flags are shown by their own filter only. */
function passes(row: FlagRow, filter: Filter): boolean {
  if (filter === 'archived') return row.archived;
  if (row.archived) return false;
  switch (filter) {
    case 'all': return true;
    case 'on': return row.enabled;
    case 'off': return !row.enabled;
    case 'partial': return row.enabled && !isTyped(row) && row.rolloutPercentage > 0 && row.rolloutPercentage < 100;
    case 'typed': return isTyped(row);
    case 'ramping': return row.ramp !== null;
    case 'stale': return row.stale !== null;
  }
}

function columns(env: string): Column<FlagRow>[] {
  return [
    {
      title: listTexts.columns.flag,
      class: 'flag-column',
      cell: (row) => (
        <>
          <a href={href(flagPath(env, row.key))}>{row.key}</a> <span class="muted">{row.description}</span>
        </>
      ),
    },
    {
      title: listTexts.columns.state,
      cell: (row) => (
        <>
          {row.type === 'unreadable' ? <Tag tone="bad">{listTexts.unreadable}</Tag> : stateSentence(summaryOf(row))}{' '}
          {row.stale && <Tag tone="warn" title={staleReasons[row.stale.reason]}>{listTexts.stale}</Tag>}
        </>
      ),
    },
    {
      title: listTexts.columns.planned,
      class: 'wide',
      cell: (row) => row.ramp
        ? <Tag tone={row.ramp.state === 'baking' ? 'accent' : 'warn'} title={row.ramp.reason ?? ''}>{listTexts.ramp(rampStates[row.ramp.state], row.ramp.percent)}</Tag>
        : row.nextSchedule && <>{listTexts.scheduled} <Time at={row.nextSchedule.at} /></>,
    },
    { title: listTexts.columns.evaluated, class: 'wide time-column', cell: (row) => <Time at={row.lastEvaluatedAt} /> },
    { title: listTexts.columns.hour, class: 'wide number hour-column', cell: (row) => count(row.recentEvaluations) },
    {
      title: listTexts.columns.change,
      class: 'change-column',
      cell: (row) => !row.archived && (
        <ToggleButton
          quiet env={env} flagKey={row.key} summary={summaryOf(row)} etag={`"${row.revision}"`} use={row.recentEvaluations}
          why={whyNotEdit(env) ?? (!row.enabled && row.ramp?.state === 'rolledBack' ? flagTexts.rolledBack : undefined)}
        />
      ),
    },
  ];
}

export function FlagListPage({ env }: { env: string }) {
  const resource = useFlagRows(env);
  const filter = FILTERS.find((name) => name === queryValue('show')) ?? 'all';
  const creating = queryValue('create') === '1';
  const create = () => setQuery({ create: 1 }, { replace: false });
  const why = whyNotEdit(env);
  useCommands(why === undefined ? [{ id: 'create', title: listTexts.create, keywords: 'new add', run: create }] : [], [env, why]);
  const rows = resource.data.value?.flags;
  const passing = useMemo(() => (rows ?? []).filter((row) => passes(row, filter)), [rows, filter]);
  const tableColumns = useMemo(() => columns(env), [env, why]);
  const exampleFlag = { key: 'new-checkout', rolloutPercentage: 5, enabled: true };
  const command = () => curlOf('post', '/api/admin/flags', { environment: env }, { body: exampleFlag });
  return (
    <Page
      title={listTexts.title(env)}
      actions={
        <>
          <CurlButton command={() => curlOf('get', '/api/admin/environments/{environment}/flags', { environment: env })} />
          <Button tone="primary" disabledBecause={why} onClick={create}>{listTexts.create}</Button>
        </>
      }
    >
      <Loaded from={resource}>
        {({ flags: all }) => (
          <SearchTable
            name="q" search={listTexts.search} textOf={(row) => `${row.key} ${row.description ?? ''}`} countOf={(shown) => listTexts.shown(shown, all.length)}
            filters={
              <div class="row" role="group" aria-label={listTexts.filter}>
                {FILTERS.map((name) => (
                  <Button key={name} tone="quiet" pressed={name === filter} onClick={() => setQuery({ show: name === 'all' ? null : name })}>
                    {flagFilters[name]}
                  </Button>
                ))}
              </div>
            }
            noMatch={
              filter !== 'archived' && all.every((row) => row.archived)
                ? <EmptyList title={listTexts.none} hint={listTexts.noneHint} command={command} />
                : <Empty title={listTexts.noMatch}><Button onClick={() => setQuery({ q: null, show: null })}>{listTexts.clear}</Button></Empty>
            }
            label={listTexts.title(env)} rows={passing} columns={tableColumns} keyOf={(row) => row.key}
          />
        )}
      </Loaded>
      {creating && <CreateFlag env={env} onClose={() => setQuery({ create: null })} />}
    </Page>
  );
}
