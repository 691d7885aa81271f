// The flags of an environment as rows of a list.
import type { Schemas } from '../api/client.ts';
import { useResource, type Resource } from '../data.ts';
import type { FlagSummary } from '../sentences.ts';

export type FlagRow = Schemas['FlagOverview'];

/** The rows are in `flags` of the data. */
export function useFlagRows(env: string): Resource<Schemas['FlagOverviews']> {
  return useResource('/api/admin/environments/{environment}/flags', { environment: env }, 30_000);
}

export function isTyped(row: FlagRow): boolean {
  return row.hasDefinition;
}

export function summaryOf(row: FlagRow): FlagSummary {
  return { ...row, variants: isTyped(row) ? row.variants : null };
}
