// The flags of an environment as rows of a list.
import { send, urlOf, type RequestOptions, type Schemas } from '../api/client.ts';
import { ApiError } from '../api/error.ts';
import type { FlagRow } from '../api/upcoming.ts';
import { useLoader, type Resource } from '../data.ts';
import type { FlagSummary } from '../sentences.ts';

const PATTERN = '/api/admin/environments/{environment}/flags';

export function useFlagRows(env: string): Resource<FlagRow[]> {
  return useLoader(urlOf(PATTERN, { path: { environment: env } }), (more) => readRows(env, more), 30_000);
}

async function readRows(env: string, more: RequestOptions): Promise<{ status: number; data: FlagRow[]; etag: string | undefined }> {
  try {
    const reply = await send('get', PATTERN, { path: { environment: env }, ...more });
    return { ...reply, data: reply.status === 304 ? [] : reply.data.flags };
  } catch (error) {
    if (!(error instanceof ApiError) || error.status !== 404) throw error;
    return { status: 200, data: await readDefinitions(env, more.signal), etag: undefined };
  }
}

/** A server without the route above has the same facts on pages of definitions, except for counts and ramps. */
async function readDefinitions(env: string, signal: AbortSignal | undefined): Promise<FlagRow[]> {
  const rows: FlagRow[] = [];
  for (const archived of ['false', 'true']) {
    for (let page = 1; ; page += 1) {
      const { data } = await send('get', '/api/admin/flags', { query: { environment: env, archived, page, pageSize: 1_000 }, signal });
      rows.push(...data.flags.map(rowOf));
      if (page * 1_000 >= data.pagination.total) break;
    }
  }
  return rows.sort((a, b) => (a.key < b.key ? -1 : 1));
}

function rowOf(flag: Schemas['FlagDefinition']): FlagRow {
  const definition = flag.definition as Schemas['Definition'] | null;
  const targeting = definition?.targeting;
  return {
    key: flag.key,
    description: flag.description,
    type: 'boolean',
    enabled: flag.enabled,
    rolloutPercentage: flag.rolloutPercentage,
    bucketing: definition ? null : 'sha256',
    variants: definition ? Object.keys(definition.variants ?? {}).length : 2,
    hasTargeting: targeting !== undefined && Object.keys(targeting).length > 0,
    defaultVariant: definition?.defaultVariant ?? null,
    serverOnly: definition?.metadata?.serverOnly ?? false,
    archived: flag.archivedAt !== null,
    updatedAt: flag.updatedAt ?? null,
    revision: flag.revision,
    overrides: 0,
    lastEvaluatedAt: null,
    evaluationsLastHour: 0,
    stale: null,
    ramp: null,
    nextSchedule: null,
  };
}

export function isTyped(row: FlagRow): boolean {
  return row.bucketing === null;
}

export function summaryOf(row: FlagRow): FlagSummary {
  return { ...row, variants: isTyped(row) ? row.variants : null };
}
