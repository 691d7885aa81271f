// Counts of evaluations as series, one value per day.

export interface DayCount {
  day: string;
  variant: string;
  count: number;
}

export interface Series {
  variant: string;
  values: number[];
  total: number;
}

/** The last `length` days of the calendar (UTC), which the service counts by; the newest is the last. */
export function lastDays(length: number, now: number = Date.now()): string[] {
  return Array.from({ length }, (_, index) => new Date(now - (length - 1 - index) * 86_400_000).toISOString().slice(0, 10));
}

/** One series per variant, the most evaluated first. Days without a count are 0. */
export function seriesOf(counts: readonly DayCount[], days: readonly string[]): Series[] {
  const byVariant = new Map<string, number[]>();
  for (const { day, variant, count } of counts) {
    const at = days.indexOf(day);
    if (at < 0) continue;
    const values = byVariant.get(variant) ?? days.map(() => 0);
    values[at] = (values[at] ?? 0) + count;
    byVariant.set(variant, values);
  }
  return [...byVariant]
    .map(([variant, values]) => ({ variant, values, total: values.reduce((sum, value) => sum + value, 0) }))
    .sort((a, b) => b.total - a.total || (a.variant < b.variant ? -1 : 1));
}
