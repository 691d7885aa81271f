// Who changed a flag, when and how, and how to revert a change.
import { send, urlOf } from '../../api/client.ts';
import { useLoader } from '../../data.ts';
import { queryValue } from '../../router.ts';
import { AuditList, pageOptions } from '../AuditList.tsx';
import { FLAG, flagParams } from './save.tsx';
import type { TabProps } from './tabs.tsx';

const PATTERN = `${FLAG}/audit` as const;

/** A link to an entry opens the page that contains it now: the first whose last entry is not newer. Ids descend, so a binary search finds it. */
export function HistoryTab({ env, flag }: TabProps) {
  const params = { ...flagParams(env, flag.key), ...pageOptions() };
  const entry = Number(!params.page && queryValue('entry')) || Infinity;
  const from = useLoader(urlOf(PATTERN, { ...params, entry }), async (options) => {
    for (let page = Number(params.page ?? 1), first = page, last = 0; ; page = (first + last) >> 1) {
      const reply = await send('get', PATTERN, { ...params, page }, options);
      const { entries, pagination } = reply.data;
      last ||= Math.ceil(pagination.total / pagination.pageSize);
      if (entries.some(({ id }) => id <= entry)) last = page;
      else first = page + 1;
      if (first === page || first > last) return reply;
    }
  });
  return <AuditList from={from} env={env} />;
}
