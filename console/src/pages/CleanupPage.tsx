// Flags that are no longer needed, over all environments.
import { useState } from 'preact/hooks';
import { curlOf, send, urlOf, type RequestOptions, type Schemas } from '../api/client.ts';
import { Button, CurlButton, Tag } from '../components/controls.tsx';
import { Empty, Loaded } from '../components/feedback.tsx';
import { confirmThen } from '../components/overlays.tsx';
import { Page } from '../components/Page.tsx';
import { useSelection } from '../components/selection.tsx';
import { Time } from '../components/Time.tsx';
import { VirtualTable, type Column } from '../components/VirtualTable.tsx';
import { isProduction } from '../config.ts';
import { useLoader } from '../data.ts';
import { flagPath } from '../route.ts';
import { href } from '../router.ts';
import { environments, whyNotEdit } from '../session.ts';
import { cleanupTexts, environmentTexts, flagTexts, listTexts, staleReasons, texts } from '../strings.ts';
import { FLAG, flagParams, restoreFlag, runSteps, toastWithUndo, type Step } from './flag/save.tsx';

type Stale = Schemas['StaleFlags']['flags'][number] & { env: string };

const PATTERN = '/api/admin/flags/stale';

const idOf = (row: Stale) => `${row.env} ${row.key}`;
const nameOf = (row: Stale) => cleanupTexts.one(row.key, row.env);
const targetOf = (row: Stale) => flagParams(row.env, row.key);

async function readStale(names: readonly string[], more: RequestOptions) {
  const replies = await Promise.all(names.map((environment) => send('get', PATTERN, { environment }, { signal: more.signal })));
  const data = replies.flatMap(({ data: { environment, flags } }) => flags.map((flag) => ({ ...flag, env: environment })));
  return { status: 200, data, etag: undefined };
}

export function CleanupPage() {
  const names = environments.value;
  return <Page title={cleanupTexts.title}>{names.length > 0 && <StaleList key={names.join()} names={names} />}</Page>;
}

function StaleList({ names }: { names: readonly string[] }) {
  const resource = useLoader<Stale[]>(urlOf(PATTERN, { environments: names.join() }), (more) => readStale(names, more));
  const { keys: selected, select, box } = useSelection();
  const [busy, setBusy] = useState(false);
  const chosen = (resource.data.value ?? []).filter((row) => selected.has(idOf(row)));
  const archive = async () => {
    setBusy(true);
    await archiveAll(chosen);
    select([]);
    setBusy(false);
  };
  const ask = () => confirmThen({
    title: cleanupTexts.archiveTitle(chosen.length),
    env: chosen.map((row) => row.env).find(isProduction),
    body: <><p>{flagTexts.archiveText}</p><ul>{chosen.map((row) => <li key={idOf(row)}>{nameOf(row)}</li>)}</ul></>,
    action: flagTexts.archive,
    danger: true,
    curl: () => chosen.map((row) => curlOf('delete', FLAG, targetOf(row), { ifMatch: '*' })).join('\n'),
    run: archive,
  });
  const tableColumns: Column<Stale>[] = [
    {
      title: cleanupTexts.columns.flag,
      class: 'flag-column',
      cell: (row) => (
        <>
          {box(idOf(row), environmentTexts.select(nameOf(row)), whyNotEdit(row.env))} <a href={href(flagPath(row.env, row.key))}>{row.key}</a>
        </>
      ),
    },
    { title: cleanupTexts.columns.environment, class: 'env-column', cell: (row) => row.env },
    { title: cleanupTexts.columns.reason, cell: (row) => row.reasons.map((reason) => <Tag key={reason} tone="warn">{staleReasons[reason]}</Tag>) },
    { title: cleanupTexts.columns.evaluated, class: 'wide time-column', cell: (row) => <Time at={row.lastEvaluatedAt} /> },
  ];
  return (
    <Loaded from={resource}>
      {(rows) => rows.length === 0 ? <Empty title={cleanupTexts.none}><p>{cleanupTexts.noneHint}</p></Empty> : (
        <>
          <div class="row">
            <Button tone="danger" busy={busy} disabledBecause={chosen.length === 0 ? cleanupTexts.nothing : undefined} onClick={ask}>
              {cleanupTexts.archive(chosen.length)}
            </Button>
            <CurlButton command={() => names.map((environment) => curlOf('get', PATTERN, { environment })).join('\n')} />
            <span class="muted" role="status">{listTexts.shown(rows.length, rows.length)}</span>
          </div>
          <VirtualTable label={cleanupTexts.title} rows={rows} columns={tableColumns} keyOf={idOf} />
        </>
      )}
    </Loaded>
  );
}

/** Archives the flags that have not changed since the list was loaded. Undo restores those that were archived. */
async function archiveAll(rows: readonly Stale[]): Promise<void> {
  const undo: Step[] = [];
  await runSteps(rows.map((row): Step => {
    const target = targetOf(row);
    const name = nameOf(row);
    return [name, async () => {
      const current = await send('get', FLAG, target);
      if (current.data.updatedAt !== row.updatedAt) throw new Error(texts.conflict.title);
      const reply = await send('delete', FLAG, target, { ifMatch: current.etag });
      undo.push([name, () => restoreFlag(row.env, current.data, reply.etag)]);
    }];
  }));
  if (undo.length > 0) toastWithUndo(cleanupTexts.archived(undo.length), undo);
}
