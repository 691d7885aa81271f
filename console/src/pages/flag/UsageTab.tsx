// How often a flag is evaluated, by day and variant.
import { curlOf } from '../../api/client.ts';
import { Sparkline } from '../../components/Sparkline.tsx';
import { CurlButton, SelectField } from '../../components/controls.tsx';
import { Empty, Loaded } from '../../components/feedback.tsx';
import { VirtualTable } from '../../components/VirtualTable.tsx';
import { useResource } from '../../data.ts';
import { queryValue, setQuery } from '../../router.ts';
import { count, usageTexts } from '../../strings.ts';
import { lastDays, seriesOf } from '../../usage.ts';
import { FLAG, flagParams } from './save.tsx';
import type { TabProps } from './tabs.tsx';

const PERIODS = ['7', '30', '90'] as const;
const PATTERN = `${FLAG}/usage` as const;

export function UsageTab({ env, flag }: TabProps) {
  const period = PERIODS.find((days) => days === queryValue('days')) ?? '30';
  const target = { ...flagParams(env, flag.key), days: Number(period) };
  const resource = useResource(PATTERN, target, 30_000);
  const days = lastDays(Number(period));
  return (
    <section class="stack">
      <div class="form-row">
        <SelectField
          label={usageTexts.period} value={period} options={PERIODS.map((value) => [value, usageTexts.days(value)] as const)}
          onChange={(value) => setQuery({ days: value })}
        />
        <CurlButton command={() => curlOf('get', PATTERN, target)} />
      </div>
      <div class="fill">
        <Loaded from={resource}>
          {(usage) => {
            const series = seriesOf(usage.days, days);
            const sum = series.reduce((total, { total: part }) => total + part, 0);
            if (sum === 0) return <Empty title={usageTexts.none}><p>{usageTexts.noneHint}</p></Empty>;
            return (
              <VirtualTable
                label={usageTexts.label(flag.key)} rows={series} keyOf={({ variant }) => variant}
                columns={[
                  { title: usageTexts.columns.variant, cell: ({ variant }) => <strong title={variant}>{variant || usageTexts.codeDefault}</strong> },
                  { title: usageTexts.columns.course, cell: ({ values }) => <Sparkline values={values} label={usageTexts.course(values)} /> },
                  { title: usageTexts.columns.count, class: 'number', cell: ({ total }) => count(total) },
                  { title: usageTexts.columns.share, class: 'number', cell: ({ total }) => `${Math.round((total / sum) * 1_000) / 10} %` },
                ]}
              />
            );
          }}
        </Loaded>
      </div>
      <p class="hint">{usageTexts.hint}</p>
    </section>
  );
}
