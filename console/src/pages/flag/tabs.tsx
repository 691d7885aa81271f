// The tabs of a flag. Each gets the flag and its ETag; a tab saves through `saveFlag` (flag/save.tsx).
import type { ComponentChildren } from 'preact';
import type { Resource } from '../../data.ts';
import type { Schemas } from '../../api/client.ts';
import { CodeTab } from './CodeTab.tsx';
import { ExplainTab } from './ExplainTab.tsx';
import { HistoryTab } from './HistoryTab.tsx';
import { RampTab } from './RampTab.tsx';
import { RolloutTab } from './RolloutTab.tsx';
import { RulesTab } from './RulesTab.tsx';
import { UsageTab } from './UsageTab.tsx';
import { UsersTab } from './UsersTab.tsx';

export interface TabProps {
  env: string;
  flag: Schemas['FlagDefinition'];
  /** For `If-Match`. */
  etag: string;
  resource: Resource<Schemas['FlagDefinition']>;
}

export const tabs: readonly (readonly [id: string, title: string, tab: (props: TabProps) => ComponentChildren])[] = [
  ['rollout', 'Rollout', RolloutTab],
  ['rules', 'Rules', RulesTab],
  ['users', 'Users', UsersTab],
  ['ramp', 'Ramp & schedule', RampTab],
  ['explain', 'Explain', ExplainTab],
  ['history', 'History', HistoryTab],
  ['usage', 'Usage', UsageTab],
  ['code', 'Code', CodeTab],
];
