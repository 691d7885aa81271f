// All overrides of a flag, from as many pages as there are.
import { send, urlOf, type Schemas } from '../../api/client.ts';
import { useLoader, type Resource } from '../../data.ts';
import { FLAG, flagParams } from './save.tsx';

export type Override = Schemas['Override'];

const PATTERN = `${FLAG}/users` as const;
const PAGE = 1_000;

export function useOverrides(env: string, flagKey: string): Resource<Override[]> {
  const target = flagParams(env, flagKey);
  return useLoader(urlOf(PATTERN, target), async ({ signal }) => {
    const overrides: Override[] = [];
    let etag: string | undefined;
    for (let page = 1; ; page += 1) {
      const { data, ...reply } = await send('get', PATTERN, { ...target, page, pageSize: PAGE }, { signal });
      overrides.push(...data.includes, ...data.excludes);
      // All pages of one state have the same tag; pages of different states belong to no tag.
      etag = page === 1 || etag === reply.etag ? reply.etag : undefined;
      if (page * PAGE >= data.pagination.total) return { status: 200, data: overrides, etag };
    }
  });
}
