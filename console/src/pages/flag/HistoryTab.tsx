// Who changed a flag, when and how, and how to revert a change.
import { useResource } from '../../data.ts';
import { AuditList, pageOptions } from '../AuditList.tsx';
import { FLAG, flagParams } from './save.tsx';
import type { TabProps } from './tabs.tsx';

export function HistoryTab({ env, flag }: TabProps) {
  const from = useResource(`${FLAG}/audit`, { ...flagParams(env, flag.key), ...pageOptions() });
  return <AuditList from={from} env={env} />;
}
