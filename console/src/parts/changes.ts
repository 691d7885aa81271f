// Other changes of flags, and their history.
import '../main.tsx';

export { ActivityPage } from '../pages/ActivityPage.tsx';
export { HistoryTab } from '../pages/flag/HistoryTab.tsx';
export { RampTab } from '../pages/flag/RampTab.tsx';
export { RolloutTab } from '../pages/flag/RolloutTab.tsx';
export { UsersTab } from '../pages/flag/UsersTab.tsx';
