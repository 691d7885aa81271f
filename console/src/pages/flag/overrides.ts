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
    for (let attempt = 1; ; attempt += 1) {
      const overrides: Override[] = [];
      const tags = new Set<string | undefined>();
      for (let page = 1, pages = 1; page <= pages; page += 1) {
        const { data, etag } = await send('get', PATTERN, { ...target, page, pageSize: PAGE }, { signal });
        overrides.push(...data.includes, ...data.excludes);
        tags.add(etag);
        pages = Math.ceil(data.pagination.total / PAGE);
      }
      // All pages of one state have the same tag. A list that changes all the time is shown without a tag.
      if (tags.size === 1 || attempt === 3) return { status: 200, data: overrides, etag: tags.size === 1 ? [...tags][0] : undefined };
    }
  });
}
