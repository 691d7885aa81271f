// One flag: what it does now, and tabs for every change of it.
import { Loaded } from '../../components/feedback.tsx';
import { Page } from '../../components/Page.tsx';
import { Tabs } from '../../components/Tabs.tsx';
import { useResource } from '../../data.ts';
import { queryValue } from '../../router.ts';
import { tabs } from './tabs.tsx';

export function FlagPage({ env, path }: { env: string; path: string }) {
  const key = queryValue('key') || path;
  const resource = useResource('/api/admin/flags/{flagKey}', { path: { flagKey: key }, query: { environment: env } });
  const id = queryValue('tab');
  const [current, , Tab] = tabs.find(([tab]) => tab === id) ?? tabs[0]!;
  return (
    <Page title={key}>
      <Loaded from={resource}>
        {(flag) => (
          <>
            <Tabs label={key} tabs={tabs.map(([tab, text]) => [tab, text] as const)} current={current} />
            <Tab key={current} env={env} flag={flag} etag={resource.etag.value ?? '*'} resource={resource} />
          </>
        )}
      </Loaded>
    </Page>
  );
}
