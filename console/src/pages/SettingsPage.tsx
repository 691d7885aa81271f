import { Page } from '../components/Page.tsx';

export function SettingsPage({ env }: { env: string }) {
  return <Page title={`Settings of ${env}`}>{null}</Page>;
}
