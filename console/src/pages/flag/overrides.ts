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
    let overrides: Override[] = [];
    let etag: string | undefined;
    for (let page = 1; ; page += 1) {
      const { data, ...reply } = await send('get', PATTERN, { ...target, page, pageSize: PAGE }, { signal });
      // All pages of one state have the same tag. After a change in between, the first page is read again.
      if (page > 1 && etag !== reply.etag) {
        overrides = [];
        page = 0;
        continue;
      }
      overrides.push(...data.includes, ...data.excludes);
      etag = reply.etag;
      if (page * PAGE >= data.pagination.total) return { status: 200, data: overrides, etag };
    }
  });
}
