import type { TabProps } from './tabs.tsx';

export function CodeTab({ flag }: TabProps) {
  return <p>{flag.key}</p>;
}
