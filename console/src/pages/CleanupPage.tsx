import { Page } from '../components/Page.tsx';

export function CleanupPage() {
  return <Page title="Cleanup">{null}</Page>;
}
