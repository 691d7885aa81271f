import type { TabProps } from './tabs.tsx';

export function HistoryTab({ flag }: TabProps) {
  return <p>{flag.key}</p>;
}
