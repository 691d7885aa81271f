import type { TabProps } from './tabs.tsx';

export function ExplainTab({ flag }: TabProps) {
  return <p>{flag.key}</p>;
}
