// The variants and rules of a flag.
import '../main.tsx';

export { RulesTab } from '../pages/flag/RulesTab.tsx';
export { TypedRollout } from '../pages/flag/TypedRollout.tsx';
