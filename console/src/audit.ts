// Audit entries as sentences.
import type { Schemas } from './api/client.ts';
import { time } from './format.ts';
import { changeSentences, fieldsOf } from './sentences.ts';
import { auditVerbs, historyTexts, rampStates, rampTexts } from './strings.ts';

export type AuditEntry = Schemas['AuditPage']['entries'][number];
type State = Record<string, unknown>;

/** An entry without its states if the response omits one of them, because nothing is known about the difference. */
export function withoutOmitted(entry: AuditEntry): AuditEntry {
  const { before, after } = entry;
  const omitted = [before, after].some((state) => stateOf(state)?.['omittedBytes']);
  return omitted ? { ...entry, before: before && undefined, after: after && undefined } : entry;
}

/** The action as the end of a sentence: `set an override of new-checkout`. */
export function actionText({ action, flagKey }: Pick<AuditEntry, 'action' | 'flagKey'>): string {
  const verb = auditVerbs[action] ?? action;
  return flagKey === null ? verb : `${verb} ${flagKey}`;
}

/** Texts about an entry: what changed of a flag, the user of an override, the state of a ramp, or a name. */
export function details({ action, before, after }: Pick<AuditEntry, 'action' | 'before' | 'after'>): string[] {
  const [was, is] = [stateOf(before), stateOf(after)];
  const it = is ?? was;
  if (!it) return [];
  if (action.startsWith('flag.')) return was && is ? changeSentences(fieldsOf(was), fieldsOf(is)) : [];
  if (action.startsWith('override.')) return [historyTexts.user(String(it['userId']))];
  if (action.startsWith('schedule.')) return [`${updateSentence(it['updates'])}, ${time(String(it['scheduledAt']))}`];
  if (action.startsWith('ramp.')) {
    // Every new ramp is pending at first; only the reason says that it waits for an approval.
    if (action === 'ramp.create') return it['reason'] ? [String(it['reason'])] : [];
    const state = rampStates[it['state'] as keyof typeof rampStates] as string | undefined;
    return [state, it['percent'] !== undefined && `${String(it['percent'])} %`, it['reason']].filter(Boolean).map(String);
  }
  return typeof it['name'] === 'string' ? [it['name']] : [];
}

/** Scheduled changes: `Turn off`, `Set the share: 25 %`. */
export function updateSentence(updates: unknown): string {
  const { enabled, rolloutPercentage } = (stateOf(updates) ?? {}) as Schemas['ScheduledUpdates'];
  return [
    enabled !== undefined && (enabled ? rampTexts.on : rampTexts.off),
    rolloutPercentage !== undefined && `${rampTexts.share}: ${rolloutPercentage} %`,
  ].filter(Boolean).join(', ');
}

/** Whether the entry holds a state to which a flag can return. */
export function canRevert(entry: AuditEntry, side: 'before' | 'after'): boolean {
  if (entry.flagKey === null || entry.broken) return false;
  return /^overrides?\./.test(entry.action) || (entry.action.startsWith('flag.') && entry[side] !== null);
}

function stateOf(value: unknown): State | null {
  return typeof value === 'object' && value !== null ? (value as State) : null;
}
