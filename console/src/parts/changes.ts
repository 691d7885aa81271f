import '../main.tsx';

export { ActivityPage } from '../pages/ActivityPage.tsx';
export { HistoryTab } from '../pages/flag/HistoryTab.tsx';
export { RampTab } from '../pages/flag/RampTab.tsx';
