import '../main.tsx';

export { RolloutTab } from '../pages/flag/RolloutTab.tsx';
export { UsersTab } from '../pages/flag/UsersTab.tsx';
