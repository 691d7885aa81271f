// The tabs of a flag. Each gets the flag and its ETag; a tab saves with `useSaving` (save.tsx).
import type { ComponentChildren } from 'preact';
import type { Schemas } from '../../api/client.ts';
import { CodeTab } from './CodeTab.tsx';
import { ExplainTab } from './ExplainTab.tsx';
import { HistoryTab } from './HistoryTab.tsx';
import { RampTab } from './RampTab.tsx';
import { RolloutTab } from './RolloutTab.tsx';
import { RulesTab } from './RulesTab.tsx';
import { TypedRollout } from './TypedRollout.tsx';
import { UsageTab } from './UsageTab.tsx';
import { UsersTab } from './UsersTab.tsx';

export interface TabProps {
  env: string;
  flag: Schemas['FlagDefinition'];
  /** For `If-Match`. */
  etag: string;
}

export const tabs: readonly (readonly [id: string, title: string, tab: (props: TabProps) => ComponentChildren])[] = [
  ['rollout', 'Rollout', (props) => (props.flag.definition === null ? <RolloutTab {...props} /> : <TypedRollout {...props} />)],
  ['rules', 'Rules', (props) => <RulesTab {...props} />],
  ['users', 'Users', (props) => <UsersTab {...props} />],
  ['ramp', 'Ramp & schedule', (props) => <RampTab {...props} />],
  ['explain', 'Explain', (props) => <ExplainTab {...props} />],
  ['history', 'History', (props) => <HistoryTab {...props} />],
  ['usage', 'Usage', (props) => <UsageTab {...props} />],
  ['code', 'Code', (props) => <CodeTab {...props} />],
];
