import { Page } from '../components/Page.tsx';

export function ActivityPage({ env }: { env: string }) {
  return <Page title={`Activity of ${env}`}>{null}</Page>;
}
