// Who changed a flag, when and how, and the way back.
import { useResource } from '../../data.ts';
import { AuditList, pageOptions } from '../AuditList.tsx';
import type { TabProps } from './tabs.tsx';

export function HistoryTab({ env, flag }: TabProps) {
  const from = useResource('/api/admin/flags/{flagKey}/audit', { flagKey: flag.key, environment: env, ...pageOptions() });
  return <AuditList from={from} env={env} />;
}
