import type { TabProps } from './tabs.tsx';

export function UsersTab({ flag }: TabProps) {
  return <p>{flag.key}</p>;
}
