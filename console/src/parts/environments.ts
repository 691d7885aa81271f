// Pages about environments and applications, and the tabs of a flag that only read.
import '../main.tsx';

export { CleanupPage } from '../pages/CleanupPage.tsx';
export { ComparePage } from '../pages/ComparePage.tsx';
export { CodeTab } from '../pages/flag/CodeTab.tsx';
export { ExplainTab } from '../pages/flag/ExplainTab.tsx';
export { UsageTab } from '../pages/flag/UsageTab.tsx';
export { KeysPage } from '../pages/KeysPage.tsx';
export { SettingsPage } from '../pages/SettingsPage.tsx';
