import { Page } from '../components/Page.tsx';

export function FlagListPage({ env }: { env: string }) {
  return <Page title={`Flags of ${env}`}>{null}</Page>;
}
