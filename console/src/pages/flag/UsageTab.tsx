// How often a flag is evaluated, by day and variant.
import { curlOf } from '../../api/client.ts';
import { Sparkline } from '../../components/Sparkline.tsx';
import { CurlButton, SelectField } from '../../components/controls.tsx';
import { Empty, Loaded } from '../../components/feedback.tsx';
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
              <table class="table" aria-label={usageTexts.label(flag.key)}>
                <thead>
                  <tr>
                    <th scope="col">{usageTexts.columns.variant}</th>
                    <th scope="col">{usageTexts.columns.course}</th>
                    <th scope="col" class="number">{usageTexts.columns.count}</th>
                    <th scope="col" class="number">{usageTexts.columns.share}</th>
                  </tr>
                </thead>
                <tbody>
                  {series.map(({ variant, values, total }) => (
                    <tr key={variant}>
                      <th scope="row" class="variant-name" title={variant}>{variant || usageTexts.codeDefault}</th>
                      <td><Sparkline values={values} label={usageTexts.course(values)} /></td>
                      <td class="number">{count(total)}</td>
                      <td class="number">{Math.round((total / sum) * 1_000) / 10} %</td>
                    </tr>
                  ))}
                </tbody>
              </table>
            );
          }}
        </Loaded>
      </div>
      <p class="hint">{usageTexts.hint}</p>
    </section>
  );
}
