// Routes that docs/openapi.yaml does not describe yet. Each entry goes away with the commit that describes its route.

import type { Explanation } from './explanation.ts';
import type { components } from './types.ts';

interface Get<T> {
  get: { responses: { 200: { content: { 'application/json': T } } } };
}
interface Post<T> {
  post: { responses: { 200: { content: { 'application/json': T } } } };
}

export interface FlagRow {
  key: string;
  description: string | null;
  type: 'boolean' | 'string' | 'number' | 'object' | 'unreadable';
  enabled: boolean;
  rolloutPercentage: number;
  /** Null for a flag with a definition. */
  bucketing: 'sha256' | 'fractional' | null;
  /** 2 for a flag without a definition. */
  variants: number;
  hasTargeting: boolean;
  defaultVariant: string | null;
  serverOnly: boolean;
  archived: boolean;
  updatedAt: string | null;
  revision: number;
  overrides: number;
  lastEvaluatedAt: string | null;
  evaluationsLastHour: number;
  stale: { reason: 'notEvaluated' | 'sameForEveryone' } | null;
  ramp: { state: string; step: number; percent: number; reason: string | null } | null;
  nextSchedule: { at: string | null; change: unknown } | null;
}

export interface FlagRows {
  environment: string;
  revision: number;
  flags: FlagRow[];
}

export interface Upcoming {
  '/api/admin/environments/{environment}/flags': Get<FlagRows>;
  '/api/admin/flags/{flagKey}/explain': Post<Explanation>;
  '/api/admin/environments/{environment}/copy': Post<components['schemas']['Difference']>;
}
