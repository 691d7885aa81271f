// The flags of two environments side by side.
import { useState } from 'preact/hooks';
import { send, urlOf, type Schemas } from '../api/client.ts';
import { Button, SelectField } from '../components/controls.tsx';
import { Diff } from '../components/Diff.tsx';
import { Empty, Loaded } from '../components/feedback.tsx';
import { SidePanel } from '../components/overlays.tsx';
import { Page } from '../components/Page.tsx';
import { VirtualTable } from '../components/VirtualTable.tsx';
import { useLoader } from '../data.ts';
import { flagPath } from '../route.ts';
import { href, queryValue, setQuery } from '../router.ts';
import { stateSentence } from '../sentences.ts';
import { environment, environments } from '../session.ts';
import { environmentTexts as t } from '../strings.ts';
import { flagSummary } from './flag/FlagPage.tsx';

type Flag = Schemas['FlagDefinition'];
interface Row { key: string; from: Flag | undefined; to: Flag | undefined }

const LIST = '/api/admin/flags';

/** All flags of an environment with their definitions, archived ones too. */
function useFlags(env: string) {
  return useLoader<Map<string, Flag>>(urlOf(LIST, { query: { environment: env, all: 1 } }), async ({ signal }) => {
    const flags = new Map<string, Flag>();
    for (const archived of ['false', 'true']) {
      for (let page = 1, pages = 1; page <= pages; page += 1) {
        const { data } = await send('get', LIST, { query: { environment: env, archived, page, pageSize: 1_000 }, signal });
        for (const flag of data.flags) flags.set(flag.key, flag);
        pages = Math.ceil(data.pagination.total / data.pagination.pageSize);
      }
    }
    return { status: 200, data: flags, etag: undefined };
  });
}

const shown = (flag: Flag | undefined) => flag && {
  enabled: flag.enabled, rolloutPercentage: flag.rolloutPercentage, description: flag.description, salt: flag.salt, definition: flag.definition, archived: flag.archivedAt !== null,
};

function rowsOf(from: Map<string, Flag>, to: Map<string, Flag>): Row[] {
  return [...new Set([...from.keys(), ...to.keys()])].sort()
    .map((key) => ({ key, from: from.get(key), to: to.get(key) }))
    .filter((row) => JSON.stringify(shown(row.from)) !== JSON.stringify(shown(row.to)));
}

export function ComparePage() {
  const names = environments.value.map((item) => item.environment);
  const from = queryValue('from') || names.find((name) => name !== environment.value) || environment.value;
  const to = queryValue('to') || environment.value;
  const options = names.map((name) => [name, name] as const);
  return (
    <Page title={t.compare}>
      <div class="form-row">
        <SelectField label={t.from} value={from} options={options} onChange={(name) => setQuery({ from: name, to })} />
        <SelectField label={t.to} value={to} options={options} onChange={(name) => setQuery({ from, to: name })} />
      </div>
      {from === to ? <Empty title={t.sameName} /> : <Comparison key={`${from} ${to}`} from={from} to={to} />}
    </Page>
  );
}

function Comparison({ from, to }: { from: string; to: string }) {
  const [left, right] = [useFlags(from), useFlags(to)];
  const [open, setOpen] = useState<Row | null>(null);
  return (
    <Loaded from={left}>
      {(a) => (
        <Loaded from={right}>
          {(b) => {
            const rows = rowsOf(a, b);
            if (rows.length === 0) return <Empty title={t.same} />;
            const state = (flag: Flag | undefined) => (flag ? stateSentence(flagSummary(flag)) : t.missing);
            return (
              <>
                <p>{t.differ(rows.length)}</p>
                <VirtualTable
                  label={t.compare}
                  rows={rows}
                  keyOf={(row) => row.key}
                  columns={[
                    { title: t.columns.flag, class: 'flag-column', cell: (row) => <a href={href(flagPath(row.from ? from : to, row.key))}>{row.key}</a> },
                    { title: from, cell: (row) => state(row.from) },
                    { title: to, cell: (row) => state(row.to) },
                    { title: t.columns.diff, class: 'time-column', cell: (row) => <Button tone="quiet" label={`${t.columns.diff}: ${row.key}`} onClick={() => setOpen(row)}>{t.columns.diff}</Button> },
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
