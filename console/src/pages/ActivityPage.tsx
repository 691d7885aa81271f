// Every change of an environment.
import { actionText } from '../audit.ts';
import { CurlButton, TextField } from '../components/controls.tsx';
import { Page } from '../components/Page.tsx';
import { curlOf } from '../api/client.ts';
import { useResource } from '../data.ts';
import { matcherOf } from '../forms.ts';
import { queryValue, setQuery } from '../router.ts';
import { historyTexts } from '../strings.ts';
import { AuditList, pageOptions } from './AuditList.tsx';

const PATTERN = '/api/admin/environments/{environment}/audit';

export function ActivityPage({ env }: { env: string }) {
  const params = { environment: env, ...pageOptions() };
  const from = useResource(PATTERN, params);
  const matches = matcherOf(queryValue('q'));
  return (
    <Page title={historyTexts.title(env)} actions={<CurlButton command={() => curlOf('get', PATTERN, params)} />}>
      <TextField type="search" label={historyTexts.filter} value={queryValue('q')} onInput={(q) => setQuery({ q })} />
      <AuditList
        from={from}
        env={env}
        matches={(entry) => matches(`${entry.actor} ${actionText(entry)} ${entry.action}`)}
      />
    </Page>
  );
}
