import { Page } from '../components/Page.tsx';

export function KeysPage({ env }: { env: string }) {
  return <Page title={`Keys of ${env}`}>{null}</Page>;
}
