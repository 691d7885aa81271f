import type { TabProps } from './tabs.tsx';

export function RolloutTab({ flag }: TabProps) {
  return <p>{flag.key}</p>;
}
