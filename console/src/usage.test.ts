import assert from 'node:assert/strict';
import { test } from 'node:test';
import { lastDays, seriesOf } from './usage.ts';

const NOW = Date.UTC(2026, 2, 1, 12);

test('days end today, across the end of a month', () => {
  assert.deepEqual(lastDays(3, NOW), ['2026-02-27', '2026-02-28', '2026-03-01']);
});

test('series have a value for every day, and the largest comes first', () => {
  const counts = [
    { day: '2026-03-01', variant: 'on', count: 5 },
    { day: '2026-02-27', variant: 'off', count: 7 },
    { day: '2026-02-28', variant: 'on', count: 1 },
    { day: '2025-01-01', variant: 'on', count: 900 },
  ];
  assert.deepEqual(seriesOf(counts, lastDays(3, NOW)), [
    { variant: 'off', values: [7, 0, 0], total: 7 },
    { variant: 'on', values: [0, 1, 5], total: 6 },
  ]);
});
