import type { TabProps } from './tabs.tsx';

export function UsageTab({ flag }: TabProps) {
  return <p>{flag.key}</p>;
}
