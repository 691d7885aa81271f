import type { TabProps } from './tabs.tsx';

export function RampTab({ flag }: TabProps) {
  return <p>{flag.key}</p>;
}
