import '../main.tsx';

export { KeysPage } from '../pages/KeysPage.tsx';
export { CodeTab } from '../pages/flag/CodeTab.tsx';
export { ExplainTab } from '../pages/flag/ExplainTab.tsx';
export { UsageTab } from '../pages/flag/UsageTab.tsx';
