import '../main.tsx';

export { CleanupPage } from '../pages/CleanupPage.tsx';
export { ComparePage } from '../pages/ComparePage.tsx';
export { SettingsPage } from '../pages/SettingsPage.tsx';
