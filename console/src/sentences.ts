// What a flag does, and what a change of it does, in sentences.
import { plural, rolloutTexts } from './strings.ts';

export interface FlagSummary {
  enabled: boolean;
  rolloutPercentage: number;
  /** Null for a simple flag, otherwise the number of variants. */
  variants: number | null;
  hasTargeting: boolean;
  defaultVariant: string | null;
  archived: boolean;
}

/** What users get now: `5 % of users`, `on for everyone`, `3 variants by rule`. */
export function stateSentence(flag: FlagSummary): string {
  if (flag.archived) return 'archived';
  if (!flag.enabled) return 'off';
  if (flag.variants === null) {
    if (flag.rolloutPercentage === 0) return 'off for everyone (0 %)';
    return flag.rolloutPercentage === 100 ? 'on for everyone' : `${flag.rolloutPercentage} % of users`;
  }
  if (flag.hasTargeting) return `${plural(flag.variants, 'variant')} by rule`;
  return flag.defaultVariant === null ? "the application's default for everyone" : `${flag.defaultVariant} for everyone`;
}

/** A share in percent: `1 in 5`, or `24 %` if it is no such fraction. */
function share(percent: number): string {
  return 100 % percent === 0 ? `1 in ${100 / percent}` : `${percent} %`;
}

/** `Raise new-checkout from 5 % to 25 % in production.` */
export function rolloutSentence(key: string, from: number, to: number, environment: string): string {
  if (from === to) return `${key} stays at ${from} % in ${environment}.`;
  return `${to > from ? 'Raise' : 'Lower'} ${key} from ${from} % to ${to} % in ${environment}.`;
}

/** `About 1 in 5 of all users newly get it.` A change of the salt or of the buckets chooses `otherUsers`. */
export function cohortSentence(from: number, to: number, otherUsers: boolean): string {
  const change = to - from;
  if (otherUsers) return rolloutTexts.otherUsers;
  if (change === 0) return 'No user gets or loses it.';
  if (Math.abs(change) === 100) return change > 0 ? 'Everyone gets it.' : 'Everyone loses it.';
  return `About ${share(Math.abs(change))} of all users ${change > 0 ? 'newly get' : 'lose'} it.`;
}

/** How many evaluations a change affects. They are counted by hours of the clock: in this one and the one before. */
export function evaluationsSentence(evaluations: number | null): string {
  if (evaluations === null) return '';
  const counted = evaluations === 0 ? 'No evaluation was counted' : plural(evaluations, 'evaluation');
  return `${counted} in the last hour or two.`;
}

export interface FlagFields {
  enabled: boolean;
  rolloutPercentage: number;
  description: string | null;
  salt: string | null;
  bucketing: string | null;
  definition: unknown;
}

/**
 * What people change of a flag, from the flag or from its state in an audit entry. A state leaves out what is null, says
 * `archived` only if it is, and may contain more, such as the source of a copy.
 */
export function fieldsOf(flag: object): FlagFields & { archived: boolean } {
  const { enabled, rolloutPercentage, description, salt = null, bucketing = null, definition = null, archived, archivedAt } = flag as FlagFields & Record<string, unknown>;
  return { enabled, rolloutPercentage, description, salt, bucketing, definition, archived: !!(archived ?? archivedAt) };
}

/** The fields that differ, one sentence each. */
export function changeSentences(before: FlagFields, after: FlagFields): string[] {
  const sentences: string[] = [];
  if (before.enabled !== after.enabled) sentences.push(after.enabled ? 'Turned on' : 'Turned off');
  if (before.rolloutPercentage !== after.rolloutPercentage) sentences.push(`Rollout: ${before.rolloutPercentage} % → ${after.rolloutPercentage} %`);
  if (before.description !== after.description) sentences.push(`Description: ${quoted(after.description)}`);
  if (before.salt !== after.salt) sentences.push(`Salt: ${quoted(after.salt)}`);
  if (before.bucketing !== after.bucketing) sentences.push(`Buckets: ${after.bucketing ?? rolloutTexts.inherit}`);
  if (JSON.stringify(before.definition) !== JSON.stringify(after.definition)) sentences.push('Variants or rules');
  return sentences;
}

function quoted(text: string | null): string {
  return text === null ? 'none' : `“${text}”`;
}
