// The tabs of a flag. Each gets the flag and its ETag; a tab saves through `saveFlag` (flag/save.tsx).
import type { ComponentChildren } from 'preact';
import type { Resource } from '../../data.ts';
import type { Schemas } from '../../api/client.ts';
import { lazy } from '../../parts/lazy.tsx';

export interface TabProps {
  env: string;
  flag: Schemas['FlagDefinition'];
  /** For `If-Match`. */
  etag: string;
  resource: Resource<Schemas['FlagDefinition']>;
}

const Simple = lazy('changes', 'RolloutTab');
const Typed = lazy('rules', 'TypedRollout');

export const tabs: readonly (readonly [id: string, title: string, tab: (props: TabProps) => ComponentChildren])[] = [
  ['rollout', 'Rollout', (props) => (props.flag.definition === null ? <Simple {...props} /> : <Typed {...props} />)],
  ['rules', 'Rules', lazy('rules', 'RulesTab')],
  ['users', 'Users', lazy('changes', 'UsersTab')],
  ['ramp', 'Ramp & schedule', lazy('changes', 'RampTab')],
  ['explain', 'Explain', lazy('environments', 'ExplainTab')],
  ['history', 'History', lazy('changes', 'HistoryTab')],
  ['usage', 'Usage', lazy('environments', 'UsageTab')],
  ['code', 'Code', lazy('environments', 'CodeTab')],
];
