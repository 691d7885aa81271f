import type { TabProps } from './tabs.tsx';

export function RulesTab({ flag }: TabProps) {
  return <p>{flag.key}</p>;
}
