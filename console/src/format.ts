// Times and durations as people read them. Times are in the browser's time zone, which the text names.

const withZone = new Intl.DateTimeFormat('en-GB', {
  day: 'numeric', month: 'short', year: 'numeric', hour: '2-digit', minute: '2-digit', timeZoneName: 'short',
});
const relative = new Intl.RelativeTimeFormat('en', { numeric: 'auto' });

/** `GMT+2` */
export function zone(date: Date = new Date()): string {
  return withZone.formatToParts(date).at(-1)?.value ?? 'UTC';
}

/** `21 Nov 2026, 06:54 GMT+2` */
export function time(text: string): string {
  const date = new Date(text);
  return Number.isNaN(date.getTime()) ? text : withZone.format(date);
}

const UNITS: readonly (readonly [Intl.RelativeTimeFormatUnit, number])[] = [
  ['day', 86_400], ['hour', 3_600], ['minute', 60], ['second', 1],
];

/** The length of a day in UTC, in milliseconds. */
const DAY = 86_400_000;

/** `3 hours ago`, `in 5 minutes`; a day without a time is `today` or `4 days ago`. */
export function ago(text: string, now: number = Date.now()): string {
  const date = new Date(text).getTime();
  if (Number.isNaN(date)) return text;
  if (/^\d{4}-\d\d-\d\d$/.test(text)) {
    return relative.format(Math.floor(date / DAY) - Math.floor(now / DAY), 'day');
  }
  const seconds = Math.round((date - now) / 1_000);
  const [unit, size] = UNITS.find(([, size]) => Math.abs(seconds) >= size) ?? ['second', 1];
  return relative.format(Math.trunc(seconds / size), unit);
}

/** `2 h 30 min` */
export function duration(seconds: number): string {
  const parts: string[] = [];
  let rest = Math.round(seconds);
  for (const [unit, size] of [['d', 86_400], ['h', 3_600], ['min', 60], ['s', 1]] as const) {
    const amount = Math.floor(rest / size);
    rest -= amount * size;
    if (amount > 0) parts.push(`${amount} ${unit}`);
  }
  return parts.slice(0, 2).join(' ') || '0 s';
}
